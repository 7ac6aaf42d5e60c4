"""The ImageNet configs build the published recipe, number by number (Image as Set of Points, section 4.1)."""

import math
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import PARAM_SCHEDULERS, init_default_scope
from mmpretrain.registry import MODELS

import mmpretrain_plugin  # noqa: F401
from coc_core import VARIANTS

CONFIGS = Path(__file__).parents[2] / 'configs' / 'classification'
IN1K = sorted(CONFIGS.glob('*_in1k.py'))


@pytest.fixture
def cfg():
    init_default_scope('mmpretrain')
    return Config.fromfile(CONFIGS / 'coc-tiny_8xb128_in1k.py')


def test_there_is_a_config_for_every_variant():
    assert {Config.fromfile(path).model.backbone.arch for path in IN1K} == set(VARIANTS)


@pytest.mark.parametrize('path', IN1K, ids=lambda p: p.stem)
def test_model_has_the_published_size(path):
    init_default_scope('mmpretrain')
    config = Config.fromfile(path)
    arch = config.model.backbone.arch
    with torch.device('meta'):
        model = MODELS.build(config.model)
    published = {'coc_small': 14657024, 'coc_medium': 29290520, 'coc_base_dim64': 54231100, 'coc_base_dim96': 53054904}
    assert sum(p.numel() for p in model.parameters()) == published.get(arch, 5570584)
    assert model.backbone.config.drop_path_rate == 0.1
    assert path.stem.split('_')[0].replace('-', '_') == arch


def test_optimizer_decays_matrices_only(cfg):
    model = MODELS.build(cfg.model)
    wrapper_cfg = dict(cfg.optim_wrapper, type='OptimWrapper')
    del wrapper_cfg['dtype'], wrapper_cfg['loss_scale']
    optimizer = build_optim_wrapper(model, wrapper_cfg).optimizer
    assert type(optimizer).__name__ == 'AdamW'
    decay = {id(p): group['weight_decay'] for group in optimizer.param_groups for p in group['params']}
    assert {group['lr'] for group in optimizer.param_groups} == {1e-3}
    for name, parameter in model.named_parameters():
        assert decay[id(parameter)] == (0.05 if parameter.ndim > 1 else 0), name
    assert (cfg.optim_wrapper.type, cfg.optim_wrapper.dtype) == ('AmpOptimWrapper', 'float16')
    assert 'clip_grad' not in cfg.optim_wrapper


def test_schedule_is_the_published_one_within_a_percent_of_the_peak(cfg):
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=1e-3)
    schedulers = [PARAM_SCHEDULERS.build(dict(s, optimizer=optimizer)) for s in cfg.param_scheduler]
    assert cfg.train_cfg.max_epochs == 310
    for epoch in range(310):
        if epoch < 5:
            published = 1e-6 + epoch * (1e-3 - 1e-6) / 5
        elif epoch < 300:
            published = 1e-6 + (1e-3 - 1e-6) * (1 + math.cos(math.pi * epoch / 300)) / 2
        else:
            published = 1e-6
        assert optimizer.param_groups[0]['lr'] == pytest.approx(published, abs=1e-5), epoch
        for scheduler in schedulers:
            scheduler.step()


def test_batches_and_loss(cfg):
    assert cfg.train_dataloader.batch_size * 8 == cfg.auto_scale_lr.base_batch_size == 1024
    assert cfg.train_dataloader.drop_last is True
    assert cfg.model.head.loss == dict(type='LabelSmoothLoss', label_smooth_val=0.1, mode='original')
    assert cfg.model.train_cfg.augments == [dict(type='Mixup', alpha=0.8), dict(type='CutMix', alpha=1.0)]
    assert not cfg.get('custom_hooks')


def test_training_pipeline(cfg):
    _, crop, flip, augment, erase, _ = cfg.train_dataloader.dataset.pipeline
    assert [t[0].type for t in crop.transforms] == ['RandomResizedCrop'] * 2
    assert [t[0].interpolation for t in crop.transforms] == ['bilinear', 'bicubic']
    assert {t[0].scale for t in crop.transforms} == {224}
    assert (flip.type, flip.prob) == ('RandomFlip', 0.5)
    for (transform,), interpolation in zip(augment.transforms, ('bilinear', 'bicubic'), strict=True):
        assert (transform.type, transform.policies) == ('RandAugment', 'timm_increasing')
        assert (transform.num_policies, transform.magnitude_level, transform.magnitude_std) == (2, 9, 0.5)
        assert transform.hparams.interpolation == interpolation
    assert (erase.type, erase.erase_prob, erase.mode) == ('RandomErasing', 0.25, 'rand')


def test_test_pipeline_crops_nine_tenths(cfg):
    _, resize, crop, _ = cfg.test_dataloader.dataset.pipeline
    assert (resize.scale, resize.edge, resize.interpolation, crop.crop_size) == (248, 'short', 'bicubic', 224)
    assert math.floor(224 / 0.9) == 248


def test_pipeline_transforms_an_image(cfg, tmp_path):
    import numpy as np
    from mmengine.dataset import Compose
    from PIL import Image

    Image.fromarray(np.random.default_rng(0).integers(0, 255, (300, 260, 3), dtype=np.uint8)).save(tmp_path / 'a.png')
    for pipeline in (cfg.train_dataloader.dataset.pipeline, cfg.test_dataloader.dataset.pipeline):
        packed = Compose(pipeline)(dict(img_path=str(tmp_path / 'a.png'), gt_label=3))
        assert packed['inputs'].shape == (3, 224, 224)
