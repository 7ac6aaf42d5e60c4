"""The data preprocessor that augments: in training alone, before mmpretrain's own, and in a training of the recipe."""

from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from PIL import Image
from processes import run_tool

import mmpretrain_plugin.device_augmentation  # noqa: F401
from coc_core.errors import UserError

ROOT = Path(__file__).parents[3]
CONFIGS = ROOT / 'configs' / 'classification'
NAME = 'coc-tiny_8xb128_in1k'


@pytest.fixture
def cfg():
    init_default_scope('mmpretrain')
    return Config.fromfile(CONFIGS / f'{NAME}-device.py')


def batch(count=6):
    torch.manual_seed(1)
    images = torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8)
    return dict(inputs=images, data_samples=[DataSample().set_gt_label(label) for label in range(count)])


def test_the_recipe_is_the_published_one_but_for_where_it_runs(cfg):
    published = Config.fromfile(CONFIGS / f'{NAME}.py')
    load, crop, flip, augment, erase, pack = published.train_dataloader.dataset.pipeline
    assert cfg.train_dataloader.dataset.pipeline == [load, crop, flip, pack]
    moved = dict(cfg.data_preprocessor)
    assert moved.pop('type') == 'AugmentingDataPreprocessor'
    assert dict(moved.pop('erasing'), type='RandomErasing') == erase
    steps = dict(moved.pop('rand_augment'), type='RandAugment')
    interpolations = steps.pop('interpolations')
    assert [
        [dict(steps, hparams=dict(steps['hparams'], interpolation=interpolation))] for interpolation in interpolations
    ] == augment.transforms
    assert moved == published.data_preprocessor
    for name in set(published) - {'train_dataloader', 'data_preprocessor', 'custom_imports'}:
        assert cfg[name] == published[name], name


def test_tests_and_predictions_are_those_of_mmpretrain(cfg):
    published = Config.fromfile(CONFIGS / f'{NAME}.py').data_preprocessor
    ours, theirs = MODELS.build(cfg.data_preprocessor), MODELS.build(dict(published, type='ClsDataPreprocessor'))
    torch.manual_seed(2)
    state = torch.get_rng_state()
    assert torch.equal(ours(batch(), False)['inputs'], theirs(batch(), False)['inputs'])
    torch.manual_seed(2)
    ours(dict(inputs=torch.zeros(1, 3, 8, 8, dtype=torch.uint8)), False)
    assert torch.equal(torch.get_rng_state(), state)


def test_training_augments_and_then_normalizes(cfg):
    cfg.data_preprocessor.rand_augment = None
    cfg.data_preprocessor.erasing.update(erase_prob=1.0, mode='const', min_area_ratio=0.3)
    model = MODELS.build(cfg.data_preprocessor)
    data = batch()
    before = data['inputs'].clone()
    found = model(data, True)['inputs']
    assert torch.equal(data['inputs'], before)
    fill = (torch.tensor([103, 116, 123])[[2, 1, 0]].view(3, 1, 1) - model.mean) / model.std
    erased = (found == fill).all(1)
    assert (erased.flatten(1).double().mean(1) > 0.2).all()
    untouched = ((before.flip(1) - model.mean) / model.std).movedim(1, -1)
    assert torch.equal(found.movedim(1, -1)[~erased], untouched[~erased])


def test_the_same_seed_gives_the_same_batch(cfg):
    model = MODELS.build(cfg.data_preprocessor)
    found = []
    for seed in (5, 5, 6):
        data = batch(32)
        torch.manual_seed(seed)
        np.random.seed(len(found))
        found.append(model(data, True)['inputs'])
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])


def test_mixed_precision_changes_no_pixel(cfg):
    # Sharpness is the operation that autocast would touch.
    sharpen = [dict(type='Sharpness', magnitude_range=(0, 0.9), prob=1.0)]
    cfg.data_preprocessor.rand_augment.policies = sharpen
    model = MODELS.build(cfg.data_preprocessor)
    found = []
    for enabled in (False, True):
        data = batch()
        torch.manual_seed(5)
        with torch.autocast('cpu', dtype=torch.bfloat16, enabled=enabled):
            found.append(model(data, True)['inputs'])
    assert torch.equal(*found)


@pytest.mark.parametrize('inputs', [[torch.zeros(3, 8, 8, dtype=torch.uint8)], torch.zeros(1, 3, 8, 8)])
def test_other_images_are_refused_in_training(cfg, inputs):
    model = MODELS.build(cfg.data_preprocessor)
    with pytest.raises(UserError, match=r'trains on uint8 images of three colors and one size: .*default_collate'):
        model(dict(inputs=inputs), True)
    assert model(dict(inputs=inputs), False)['inputs'].shape == (1, 3, 8, 8)


CHILD = """
_base_ = {base!r}
metainfo = dict(classes=['first', 'second'])
model = dict(
    backbone=dict(arch=dict(_delete_=True,
        depths=(1, 1, 1, 1), dims=(8, 8, 16, 16), mlp_ratios=2, heads=2, head_dim=4, center_grid=2, region_grid=1)),
    head=dict(in_channels=16, num_classes=2))
data_preprocessor = dict(num_classes=2)
optim_wrapper = dict(_delete_=True, optimizer=dict(type='AdamW', lr=1e-3))
train_dataloader = dict(batch_size=4, num_workers=1, dataset=dict(data_root='data', metainfo=metainfo))
val_dataloader = dict(batch_size=4, num_workers=1, dataset=dict(data_root='data', metainfo=metainfo))
test_dataloader = val_dataloader
val_evaluator = test_evaluator = dict(topk=1)
train_cfg = dict(max_epochs=1)
default_hooks = dict(logger=dict(interval=1))
"""


@pytest.fixture
def small(tmp_path):
    """A folder with a dozen images and a config that trains on them."""
    random = np.random.default_rng(0)
    for split in ('train', 'val'):
        for label, name in enumerate(('first', 'second')):
            folder = tmp_path / 'data' / split / name
            folder.mkdir(parents=True)
            for number in range(6):
                pixels = random.integers(90 * label, 90 * label + 160, (260, 300, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f'{number}.JPEG')
    (tmp_path / 'small.py').write_text(CHILD.format(base=str(CONFIGS / f'{NAME}-device.py')))
    return tmp_path


def test_the_recipe_trains(small):
    done = run_tool(ROOT / 'tools' / 'train.py', 'small.py', '--work-dir', 'out', cwd=small)
    assert done.returncode == 0, done.stderr[-3000:]
    losses = [line for line in done.stdout.splitlines() if 'Epoch(train)' in line]
    assert len(losses) == 3 and all('loss: ' in line and 'nan' not in line for line in losses)
    assert (small / 'out' / 'epoch_1.pth').exists()


def test_a_wrong_argument_ends_training_with_one_sentence(small):
    option = 'data_preprocessor.erasing.erase_prob=7.0'
    done = run_tool(ROOT / 'tools' / 'train.py', 'small.py', '--cfg-options', option, cwd=small)
    sentence = f'error: {option} must be a float from 0.0 to 1.0.\n'
    assert done.returncode == 2 and done.stderr.endswith(sentence), done.stderr[-2000:]
