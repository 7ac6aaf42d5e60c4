"""Semantic FPN and UPerNet on the backbone: golden maps, mixed precision, any image size."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch.testing import assert_close

import mmseg_plugin  # noqa: F401
from coc_core.checkpoints import from_official
from coc_core.mm.models import replace_sync_batch_norm

CONFIGS = Path(__file__).parents[2] / 'configs' / 'segmentation'


def build(name, **backbone):
    init_default_scope('mmseg')
    cfg = Config.fromfile(CONFIGS / name)
    cfg.model.backbone.update(init_cfg=None, **backbone)
    replace_sync_batch_norm(cfg.model)
    torch.manual_seed(0)
    return MODELS.build(cfg.model)


def batch(classes, size):
    labels = torch.randint(0, classes, (2, 1, *size))
    labels[:, :, :5] = 255
    meta = dict(img_shape=size, ori_shape=size, pad_shape=size, batch_input_shape=size)
    samples = [SegDataSample(gt_sem_seg=PixelData(data=one), metainfo=meta) for one in labels]
    return torch.randn(2, 3, *size), samples


@pytest.mark.parametrize('centers', [2, 5, 7])
def test_dense_golden_cases_through_the_registry(golden, centers):
    case = golden(f'dense_coc_small_{centers**2}')
    init_default_scope('mmseg')
    model = MODELS.build(dict(type='ContextCluster', arch='coc_small', center_grid=centers)).double().eval()
    model.load_state_dict(from_official(case.published_state_dict('dense_coc_small')))
    with torch.no_grad():
        for i, output in enumerate(model(case.image())):
            assert_close(output, case.expected[f'stage{i}'].double(), rtol=0, atol=1e-6)


@pytest.mark.family
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_semantic_fpn_trains_and_predicts_in_every_precision(dtype):
    model = build('fpn_coc-tiny-4_1xb8-2k_digits.py').train()
    inputs, samples = batch(11, (96, 96))
    with torch.autocast('cpu', dtype=dtype, enabled=dtype != torch.float32):
        loss, _ = model.parse_losses(model(inputs, samples, mode='loss'))
    loss.backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())
    inputs, samples = batch(11, (75, 110))
    with torch.no_grad(), torch.autocast('cpu', dtype=dtype, enabled=dtype != torch.float32):
        (first, _) = model.eval()(inputs, samples, mode='predict')
    assert first.pred_sem_seg.data.shape == (1, 75, 110)


def test_upernet_uses_every_parameter_that_it_has():
    model = build('upernet_coc-small-4_4xb4-80k_ade20k-512x512.py', depths=(1, 1, 1, 1)).train()
    loss, _ = model.parse_losses(model(*batch(150, (96, 96)), mode='loss'))
    loss.backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []
