"""RandAugment of a batch does to each image what mmpretrain's transforms do, and draws what they draw."""

import numpy as np
import pytest
import torch
from mmengine.registry import init_default_scope
from mmpretrain.datasets import RandAugment
from mmpretrain.datasets.transforms.auto_augment import RANDAUG_POLICIES
from mmpretrain.registry import TRANSFORMS
from scipy.ndimage import gaussian_filter
from scipy.stats import chisquare, ks_2samp

from coc_core.errors import UserError
from mmpretrain_plugin.device_augmentation.rand_augment import BatchRandAugment

FILL = [104, 116, 124]
RECIPE = dict(
    policies='timm_increasing', num_policies=2, total_level=10, magnitude_level=9, magnitude_std=0.5,
    hparams=dict(pad_val=FILL),
)  # fmt: skip
POLICIES = RANDAUG_POLICIES['timm_increasing']
ARGUMENT = {'Rotate': 'angle', 'Solarize': 'thr', 'Posterize': 'bits'}
WARPS = ('Rotate', 'Shear', 'Translate')
CASES = [
    (number, interpolation)
    for number, policy in enumerate(POLICIES)
    for interpolation in (('nearest', 'bilinear', 'bicubic') if policy['type'] in WARPS else ('bilinear',))
]


@pytest.fixture(autouse=True)
def scope():
    init_default_scope('mmpretrain')
    torch.manual_seed(0)
    np.random.seed(0)


def pictures(count, size):
    """Smooth pictures that reach both ends of the range, uint8 [B, H, W, 3]."""
    noise = gaussian_filter(np.random.default_rng(0).normal(0, 1, (count, *size, 3)), (0, 2, 2, 0))
    return np.clip(128 + 400 * noise, 0, 255).astype(np.uint8)


def tensor(images):
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()


@pytest.mark.parametrize(
    ('number', 'interpolation'), CASES, ids=[f'{POLICIES[number]["type"]}-{number}-{mode}' for number, mode in CASES]
)
def test_an_operation_gives_the_pixels_of_the_pipelines(number, interpolation):
    policy = dict(POLICIES[number])
    name = policy['type']
    images = pictures(5, (60, 53))
    low, high = policy.pop('magnitude_range', (0, 0))
    amounts = [low + level * (high - low) for level in (0.0, 0.1, 0.35, 0.77, 1.0)]
    if 'random_negative_prob' in TRANSFORMS.get(name).__init__.__code__.co_varnames:
        amounts[1::2] = [-amount for amount in amounts[1::2]]
    augment = BatchRandAugment(**RECIPE, interpolations=[interpolation])
    places = torch.full((5,), number)
    found = augment.apply(tensor(images), places, torch.tensor(amounts).float(), torch.zeros_like(places))
    options = dict(policy, prob=1.0, **(dict(pad_val=FILL, interpolation=interpolation) if name in WARPS else {}))
    for image, amount, ours in zip(images, amounts, found, strict=True):
        if name not in ('AutoContrast', 'Equalize', 'Invert'):
            options[ARGUMENT.get(name, 'magnitude')] = amount
        transform = TRANSFORMS.build(options)
        transform.random_negative_prob = 0
        theirs = transform.transform(dict(img=image.copy()))['img'].astype(int)
        difference = np.abs(theirs - ours.permute(1, 2, 0).numpy())
        if interpolation == 'nearest':
            # Halfway between two pixels either is taken.
            assert (difference > 0).mean() < 0.02
        else:
            assert difference.max() <= 1 and (difference > 0).mean() < 0.02


def test_operations_are_drawn_evenly_and_half_of_them_are_left_out():
    operation, _ = BatchRandAugment(**RECIPE).draw(30000)
    drawn = operation[operation >= 0]
    assert len(drawn) / 30000 == pytest.approx(0.5, abs=4 * (0.25 / 30000) ** 0.5)
    assert chisquare(np.bincount(drawn, minlength=len(POLICIES))).pvalue > 1e-3


@pytest.mark.parametrize('deviation', [0.5, 0, 'inf'])
def test_magnitudes_are_distributed_as_those_of_the_pipeline(deviation):
    options = dict(RECIPE, magnitude_std=deviation)
    operation, magnitude = BatchRandAugment(**options).draw(100000)
    for number, transform in enumerate(RandAugment(**options)):
        if transform.magnitude_range is None:
            continue
        theirs = np.array([transform.random_negative(transform.random_magnitude()) for _ in range(3000)])
        ours = magnitude[operation == number].numpy().astype(float)
        # What one rounds up and the other down is no difference.
        assert ks_2samp(ours.round(4), theirs.round(4)).pvalue > 1e-3, transform


def test_whole_images_are_distributed_as_those_of_the_pipeline():
    image = pictures(1, (24, 24))
    choices = [
        RandAugment(**dict(RECIPE, hparams=dict(pad_val=FILL, interpolation=i))) for i in ('bilinear', 'bicubic')
    ]
    theirs = np.stack([choices[n % 2].transform(dict(img=image[0].copy()))['img'] for n in range(3000)])
    ours = BatchRandAugment(**RECIPE)(tensor(image.repeat(3000, 0))).permute(0, 2, 3, 1).numpy()
    for of in (np.mean, np.std, lambda x, axis: x[:, 3, 5, 1], lambda x, axis: x[:, 20, 2, 2]):
        found = [of(images.astype(float), axis=(1, 2, 3)) for images in (ours, theirs)]
        assert ks_2samp(*found).pvalue > 1e-3
    unchanged = [(images == image).all((1, 2, 3)).mean() for images in (ours, theirs)]
    assert unchanged[0] == pytest.approx(unchanged[1], abs=0.05) and unchanged[0] > 0.2


def test_each_image_draws_its_interpolation():
    rotate = [dict(type='Rotate', magnitude_range=(0, 30), prob=1.0, random_negative_prob=0.0)]
    augment = BatchRandAugment(**dict(RECIPE, policies=rotate, num_policies=1, magnitude_std=0))
    found = augment(tensor(pictures(1, (24, 24)).repeat(200, 0)))
    _, counts = found.flatten(1).unique(dim=0, return_counts=True)
    assert len(counts) == 2 and counts.min() > 60


@pytest.mark.parametrize(
    ('options', 'sentence'),
    [
        (
            dict(interpolations=['lanczos']),
            r"interpolations=\['lanczos'\] must be some of nearest, bilinear, bicubic.$",
        ),
        (dict(policies='timm'), r"must have arguments of mmpretrain's RandAugment \(Invalid policies, please choose"),
        (dict(magnitude=3), r"RandAugment \(.*unexpected keyword argument 'magnitude'\).$"),
        (dict(policies=[dict(type='Cutout', magnitude_range=(0, 9))]), r'rand_augment has no operation Cutout for bat'),
        (dict(policies=[dict(type='Rotate', angle=30.0)]), r'rand_augment cannot set angle of Rotate'),
        (dict(policies=[dict(type='SolarizeAdd', magnitude_range=(0, 9), thr=9)]), r'cannot set thr of SolarizeAdd'),
        (dict(hparams=dict(interpolation='bicubic')), r'cannot set interpolation of Rotate: .*rand_augment.interpolat'),
    ],
)
def test_a_wrong_argument_is_one_sentence(options, sentence):
    with pytest.raises(UserError, match=sentence):
        BatchRandAugment(**{**RECIPE, **options})
