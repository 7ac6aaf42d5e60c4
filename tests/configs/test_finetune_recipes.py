"""The bases for fine-tuning: what a training of a few epochs on a user's data needs."""

from pathlib import Path

import pytest
from mmengine.config import Config

BASES = sorted((Path(__file__).parents[2] / 'configs' / '_base_').glob('finetune_*.py'))


@pytest.fixture(params=BASES, ids=lambda path: path.stem)
def cfg(request):
    return Config.fromfile(request.param, import_custom_modules=False)


def test_there_is_one_for_each_task():
    tasks = ('classification', 'detection', 'pointcloud', 'segmentation')
    assert [path.stem for path in BASES] == [f'finetune_{task}' for task in tasks]


def test_the_length_is_one_entry_that_the_schedules_follow(cfg):
    warm_up, main = cfg.param_scheduler
    assert warm_up.end <= 2 and not {'begin', 'T_max'} & set(warm_up)
    assert not {'begin', 'end', 'T_max'} & set(main) and main.type == 'CosineAnnealingLR'
    assert cfg.train_cfg.max_epochs <= 50 and 'max_iters' not in cfg.train_cfg
    assert cfg.get('log_processor', {}).get('by_epoch', True)
    assert cfg.default_hooks.checkpoint.get('by_epoch', True) and cfg.default_hooks.checkpoint.save_best


def test_weights_are_averaged_however_many_steps_there_are(cfg):
    assert dict(type='EMAHook', ema_type='MomentumAnnealingEMA', gamma=10) in cfg.custom_hooks


def test_nothing_needs_a_gpu_or_leaves_out_images(cfg):
    assert cfg.optim_wrapper.type == 'OptimWrapper' and 'SyncBN' not in repr(cfg.model)
    # Batch normalization over single clouds has no variance.
    assert bool(cfg.train_dataloader.get('drop_last')) == (cfg.default_scope == 'pointcloud')


def test_layers_near_the_image_learn_more_slowly(cfg):
    decayed = cfg.optim_wrapper.get('constructor') == 'LayerDecayOptimWrapperConstructor'
    assert decayed == (cfg.default_scope != 'pointcloud')
    assert not decayed or 0.7 < cfg.optim_wrapper.paramwise_cfg.layer_decay_rate < 1


def test_the_augmentation_is_weak(cfg):
    strong = ('Mixup', 'CutMix', 'RandAugment', 'RandomErasing', 'PhotoMetricDistortion')
    assert not any(name in repr(cfg.train_dataloader) + repr(cfg.model) for name in strong)
    assert cfg.test_dataloader == cfg.val_dataloader
