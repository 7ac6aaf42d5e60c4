"""Erasing a batch draws what mmpretrain's transform draws for single images."""

import numpy as np
import pytest
import torch
from mmpretrain.datasets import RandomErasing
from scipy.stats import ks_2samp

from coc_core.errors import UserError
from mmpretrain_plugin.device_augmentation.erasing import BatchErasing

RECIPE = dict(
    erase_prob=0.25,
    mode='rand',
    min_area_ratio=0.02,
    max_area_ratio=1 / 3,
    fill_color=[103.53, 116.28, 123.675],
    fill_std=[57.375, 57.12, 58.395],
)
# Two samples of 20,000 from one distribution are farther apart in one of a thousand tries.
DISTANCE = 1.95 * (2 / 20000) ** 0.5


@pytest.mark.parametrize('size', [(224, 224), (40, 90)])
def test_rectangles_are_distributed_as_those_of_the_pipeline(size):
    torch.manual_seed(0)
    np.random.seed(0)
    ours = BatchErasing(**RECIPE).draw_places(20000, *size).numpy()
    transform = RandomErasing(**RECIPE)
    theirs = np.array([transform.random_patch(*size) for _ in range(20000)])
    for name, of in {
        'top': lambda p: p[:, 0],
        'left': lambda p: p[:, 1],
        'rows': lambda p: p[:, 2],
        'columns': lambda p: p[:, 3],
        'area': lambda p: p[:, 2] * p[:, 3],
        'aspect': lambda p: p[:, 2] / p[:, 3],
        'bottom': lambda p: p[:, 0] + p[:, 2],
    }.items():
        assert ks_2samp(of(ours), of(theirs)).statistic < DISTANCE, name
    assert (ours[:, 0] + ours[:, 2]).max() <= size[0] and (ours[:, 1] + ours[:, 3]).max() <= size[1]


def test_each_image_is_erased_or_not_and_has_a_rectangle_of_its_own():
    torch.manual_seed(0)
    images = torch.full((4000, 3, 24, 32), 200, dtype=torch.uint8)
    before = images.clone()
    erased = BatchErasing(**dict(RECIPE, mode='const', fill_color=[7, 8, 9], fill_std=None))(images)
    assert torch.equal(images, before)
    inside = erased != 200
    share = inside.flatten(1).any(1).double().mean()
    # Four deviations of 4,000 draws.
    assert share == pytest.approx(0.25, abs=4 * (0.25 * 0.75 / 4000) ** 0.5)
    rows, columns = inside[:, 0].any(2), inside[:, 0].any(1)
    assert torch.equal(inside, (rows[:, :, None] & columns[:, None, :])[:, None].expand_as(inside))
    for line in (rows, columns):
        assert (line.diff(dim=1, prepend=torch.zeros(len(line), 1, dtype=torch.bool)).sum(1) <= 2).all()
    assert len(torch.unique(inside[:, 0].flatten(1), dim=0)) > 0.9 * share * 4000
    assert [int(v) for v in erased[inside].unique()] == [7, 8, 9]


@pytest.mark.parametrize('deviation', [RECIPE['fill_std'], None], ids=['normal', 'uniform'])
def test_noise_is_distributed_as_that_of_the_pipeline(deviation):
    torch.manual_seed(0)
    np.random.seed(0)
    options = dict(RECIPE, erase_prob=1.0, min_area_ratio=1.0, max_area_ratio=1.0, aspect_range=(1.0, 1.0))
    options['fill_std'] = deviation
    ours = BatchErasing(**options)(torch.zeros(2, 3, 100, 100, dtype=torch.uint8))
    assert not torch.equal(ours[0], ours[1])
    image = np.zeros((200, 100, 3), dtype=np.uint8)
    theirs = RandomErasing(**options)._fill_pixels(image, 0, 0, 200, 100)
    for channel in range(3):
        one, other = ours[:, channel].flatten().numpy(), theirs[..., channel].flatten()
        assert ks_2samp(one, other).statistic < DISTANCE
        assert {0, 255} <= set(one.tolist())


@pytest.mark.parametrize(
    ('options', 'sentence'),
    [
        (dict(erase_prob=2.0), r'erasing.erase_prob=2.0 must be a float from 0.0 to 1.0.$'),
        (dict(max_area_ratio=1), r'erasing.max_area_ratio=1 must be a float from 0.0 to 1.0.$'),
        (dict(min_area_ratio=0.5), r"must have arguments of mmpretrain's RandomErasing \(min_area_ratio should be sm"),
        (dict(color=3), r"mmpretrain's RandomErasing \(.*unexpected keyword argument 'color'\).$"),
    ],
)
def test_a_wrong_argument_is_one_sentence(options, sentence):
    with pytest.raises(UserError, match=sentence):
        BatchErasing(**options)
