"""Mask R-CNN and RetinaNet on the backbone: golden maps, RoIAlign, mixed precision."""

from pathlib import Path

import pytest
import torch
from mmdet.registry import MODELS
from mmdet.testing import demo_mm_inputs
from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch.testing import assert_close

import mmdet_plugin  # noqa: F401
from coc_core.checkpoints import from_official

CONFIGS = Path(__file__).parents[2] / 'configs' / 'detection'
DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def build(name, **backbone):
    init_default_scope('mmdet')
    cfg = Config.fromfile(CONFIGS / name)
    cfg.model.backbone.update(init_cfg=None, **backbone)
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    model.init_weights()
    return model


def batch(model, *, training, **options):
    samples = demo_mm_inputs(2, [[3, 96, 75], [3, 70, 96]], **options)
    data = model.data_preprocessor(samples, training)
    return data['inputs'], data['data_samples']


@pytest.mark.parametrize('centers', [2, 5, 7])
def test_dense_golden_cases_through_the_registry(golden, centers):
    case = golden(f'dense_coc_small_{centers**2}')
    init_default_scope('mmdet')
    model = MODELS.build(dict(type='ContextCluster', arch='coc_small', center_grid=centers)).double().eval()
    model.load_state_dict(from_official(case.published_state_dict('dense_coc_small')))
    with torch.no_grad():
        for i, output in enumerate(model(case.image())):
            assert_close(output, case.expected[f'stage{i}'].double(), rtol=0, atol=1e-6)


@pytest.mark.family
@pytest.mark.parametrize('dtype', DTYPES, ids=str)
def test_mask_rcnn_trains_and_predicts_in_every_precision(dtype):
    model = build('mask-rcnn_coc-tiny-4_fpn_1xb4-8e_digits.py').train()
    inputs, samples = batch(model, training=True, num_classes=10, with_mask=True)
    with torch.autocast('cpu', dtype=dtype, enabled=dtype != torch.float32):
        loss, values = model.parse_losses(model(inputs, samples, mode='loss'))
    loss.backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())
    assert values['loss_mask'] > 0 and values['loss_rpn_cls'] > 0
    model.eval()
    inputs, samples = batch(model, training=False, num_classes=10, with_mask=True)
    with torch.no_grad(), torch.autocast('cpu', dtype=dtype, enabled=dtype != torch.float32):
        (first, second) = model(inputs, samples, mode='predict')
    assert first.pred_instances.masks.shape[1:] == tuple(first.ori_shape[:2])
    assert second.pred_instances.bboxes.dtype == torch.float32


def test_stock_roi_extractor_may_read_the_maps_as_they_are():
    """RoIAlign of mmcv takes channels-last memory for NCHW: what the backbone returns must not be that."""
    backbone = build('mask-rcnn_coc-tiny-4_fpn_1xb4-8e_digits.py').backbone
    assert all(output.is_contiguous() for output in backbone(torch.randn(1, 3, 64, 96)))


@pytest.mark.parametrize('dtype', DTYPES, ids=str)
def test_roi_extractor_pools_in_float32_whatever_the_memory_format(dtype):
    options = dict(roi_layer=dict(type='RoIAlign', output_size=5, sampling_ratio=2), out_channels=6)
    ours = MODELS.build(dict(type='Float32RoIExtractor', featmap_strides=[4, 8], **options))
    stock = MODELS.build(dict(type='SingleRoIExtractor', featmap_strides=[4, 8], **options))
    maps = [torch.randn(2, 6, size, size + 3).to(dtype) for size in (40, 20)]
    rois = torch.tensor([[0, 3.3, 5.1, 40.7, 60.2], [1, 10.0, 0.0, 150.3, 159.9]])
    expected = stock([m.float() for m in maps], rois)
    found = ours([m.to(memory_format=torch.channels_last) for m in maps], rois)
    assert found.dtype == torch.float32
    assert_close(found, expected)


def test_retinanet_uses_every_parameter_that_it_has():
    model = build('retinanet_coc-small-4_fpn_1x_coco.py', depths=(1, 1, 1, 1)).train()
    inputs, samples = batch(model, training=True, num_classes=80)
    loss, _ = model.parse_losses(model(inputs, samples, mode='loss'))
    loss.backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []
