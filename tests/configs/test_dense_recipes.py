"""The COCO and ADE20K configs build the published recipes, number by number (paper, sections 4.3 and 4.4)."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DATASETS, MODELS, PARAM_SCHEDULERS, init_default_scope

from coc_core import VARIANTS

CONFIGS = Path(__file__).parents[2] / 'configs'
MASK_RCNN = sorted((CONFIGS / 'detection').glob('mask-rcnn_*_coco.py'))
SEMANTIC_FPN = sorted((CONFIGS / 'segmentation').glob('fpn_*_ade20k-512x512.py'))
CENTERS = {'4': 2, '25': 5, '49': 7}


def load(path):
    cfg = Config.fromfile(path)
    init_default_scope(cfg.default_scope)
    return cfg


def build(cfg):
    with torch.device('meta'):
        return MODELS.build(cfg.model)


def variant_of(path):
    """'coc_small', '25' of '..._coc-small-25_...'."""
    _, _, rest = path.stem.partition('coc-')
    size, centers = rest.split('_')[0].split('-')
    return f'coc_{size}', centers


def steps(pipeline):
    return [
        (step['type'], {k: v for k, v in step.items() if k not in ('type', 'backend_args', '_scope_')})
        for step in pipeline
    ]


def rates(cfg, count, per_epoch=None):
    """The learning rates of the first ``count`` iterations as fractions of the config's."""
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedulers = [PARAM_SCHEDULERS.build(dict(s, optimizer=optimizer)) for s in cfg.param_scheduler]
    values = []
    for i in range(count):
        values.append(optimizer.param_groups[0]['lr'])
        optimizer.step()
        for scheduler in schedulers:
            if not scheduler.by_epoch or (i + 1) % per_epoch == 0:
                scheduler.step()
    return values


def assert_adamw_on_all_parameters(cfg, lr):
    assert cfg.optim_wrapper.type == 'OptimWrapper' and not cfg.optim_wrapper.get('clip_grad')
    model = build(cfg)
    optimizer = build_optim_wrapper(model, cfg.optim_wrapper).optimizer
    assert type(optimizer) is torch.optim.AdamW
    assert {(group['lr'], group['weight_decay']) for group in optimizer.param_groups} == {(lr, 1e-4)}
    covered = {id(p) for group in optimizer.param_groups for p in group['params']}
    assert covered == {id(p) for p in model.parameters()}


def test_there_are_six_variants_of_each():
    expected = {(f'coc_{size}', centers) for size in ('small', 'medium') for centers in CENTERS}
    assert {variant_of(path) for path in MASK_RCNN} == {variant_of(path) for path in SEMANTIC_FPN} == expected


@pytest.mark.parametrize('path', MASK_RCNN + SEMANTIC_FPN, ids=lambda p: p.stem)
def test_variant_and_size(path):
    cfg = load(path)
    arch, centers = variant_of(path)
    model = build(cfg)
    assert cfg.model.backbone.arch == arch and model.backbone.config.drop_path_rate == 0
    assert model.backbone.config.center_grid == (CENTERS[centers],) * 4
    assert cfg.model.neck.in_channels == list(VARIANTS[arch].dims)
    assert cfg.model.backbone.init_cfg == dict(type='Pretrained', checkpoint=f'checkpoints/{arch}.pth')
    sizes = {'coc_small': (34312456, 18411694), 'coc_medium': (48945952, 33045190)}
    assert sum(p.numel() for p in model.parameters()) == sizes[arch][path in SEMANTIC_FPN]


@pytest.mark.parametrize('path', MASK_RCNN, ids=lambda p: p.stem)
def test_mask_rcnn_recipe(path):
    cfg = load(path)
    per_gpu = 2 if variant_of(path) == ('coc_medium', '49') else 4
    assert (cfg.train_dataloader.batch_size, cfg.auto_scale_lr.base_batch_size) == (per_gpu, 8 * per_gpu)
    assert cfg.train_cfg.max_epochs == 12
    assert cfg.optim_wrapper.optimizer == dict(type='AdamW', lr=2e-4, weight_decay=1e-4)
    assert cfg.model.data_preprocessor.pad_size_divisor == 32
    assert cfg.model.roi_head.bbox_head.num_classes == cfg.model.roi_head.mask_head.num_classes == 80
    assert steps(cfg.train_dataloader.dataset.pipeline) == [
        ('LoadImageFromFile', {}),
        ('LoadAnnotations', dict(with_bbox=True, with_mask=True)),
        ('Resize', dict(scale=(1333, 800), keep_ratio=True)),
        ('RandomFlip', dict(prob=0.5)),
        ('PackDetInputs', {}),
    ]
    assert steps(cfg.test_dataloader.dataset.pipeline)[1] == ('Resize', dict(scale=(1333, 800), keep_ratio=True))


def test_coco_schedule():
    cfg = load(MASK_RCNN[0])
    assert_adamw_on_all_parameters(cfg, 2e-4)
    rate = rates(cfg, 12 * 600, per_epoch=600)
    assert rate[0] == pytest.approx(0.001) and rate[250] == pytest.approx(0.5, abs=0.01)
    assert rate[500:4800] == pytest.approx([1.0] * 4300)
    assert rate[4800:6600] == pytest.approx([0.1] * 1800) and rate[6600:] == pytest.approx([0.01] * 600)


@pytest.mark.parametrize('path', SEMANTIC_FPN, ids=lambda p: p.stem)
def test_semantic_fpn_recipe(path):
    cfg = load(path)
    assert (cfg.train_dataloader.batch_size, cfg.auto_scale_lr.base_batch_size) == (4, 16)
    assert cfg.train_cfg.max_iters == 80000
    assert cfg.optim_wrapper.optimizer == dict(type='AdamW', lr=1e-4, weight_decay=1e-4)
    assert cfg.model.data_preprocessor.size == (512, 512) and cfg.model.test_cfg.mode == 'whole'
    assert cfg.model.decode_head.num_classes == 150
    assert steps(cfg.train_dataloader.dataset.pipeline) == [
        ('LoadImageFromFile', {}),
        ('LoadAnnotations', {}),
        ('RandomResize', dict(scale=(2048, 512), ratio_range=(0.5, 2.0), keep_ratio=True)),
        ('RandomCrop', dict(crop_size=(512, 512), cat_max_ratio=0.75)),
        ('RandomFlip', dict(prob=0.5)),
        ('PhotoMetricDistortion', {}),
        ('PackSegInputs', {}),
    ]
    assert steps(cfg.test_dataloader.dataset.pipeline) == [
        ('LoadImageFromFile', {}),
        ('Resize', dict(scale=(2048, 512), keep_ratio=True)),
        ('ResizeToMultiple', dict(size_divisor=32)),
        ('LoadAnnotations', {}),
        ('PackSegInputs', {}),
    ]
    assert cfg.val_dataloader == cfg.test_dataloader
    assert DATASETS.build(dict(cfg.train_dataloader.dataset, pipeline=[], lazy_init=True)).reduce_zero_label


def test_ade20k_schedule():
    cfg = load(SEMANTIC_FPN[0])
    assert_adamw_on_all_parameters(cfg, 1e-4)
    rate = rates(cfg, 80000)
    for i in (0, 1, 500, 40000, 79999):
        # mmengine reaches the end one iteration early.
        assert rate[i] == pytest.approx((1 - i / 80000) ** 0.9, abs=1e-4)


def test_other_heads_build_and_ask_for_no_norm_that_they_do_not_use():
    retinanet = build(load(CONFIGS / 'detection' / 'retinanet_coc-small-4_fpn_1x_coco.py'))
    assert [name for name, _ in retinanet.backbone.dense_norms.named_children()] == ['1', '2', '3']
    upernet = build(load(CONFIGS / 'segmentation' / 'upernet_coc-small-4_4xb4-80k_ade20k-512x512.py'))
    assert upernet.decode_head.num_classes == upernet.auxiliary_head.num_classes == 150
