"""A config's model for one process, and what a picture becomes on its way into it."""

from pathlib import Path
from types import SimpleNamespace

import mmdet.models  # noqa: F401
import numpy as np
import pytest
import torch
from mmdet.registry import MODELS as DETECTION_MODELS
from mmengine.config import Config
from torch import nn
from torch.testing import assert_close

from coc_core import create_model
from coc_core.errors import UserError
from coc_core.mm.models import build_model, network_input, replace_sync_batch_norm

DIGITS = Path(__file__).parents[3] / 'configs' / 'classification' / 'coc-tiny_1xb32-12e_digits.py'
PICTURE = np.random.default_rng(0).integers(0, 256, (50, 90, 3), dtype=np.uint8)


def residual(**entries):
    backbone = dict(type='ResNet', depth=18, norm_cfg=dict(type='SyncBN', requires_grad=True))
    model = dict(
        type='ImageClassifier', backbone=backbone, head=dict(type='LinearClsHead', num_classes=2, in_channels=512)
    )
    return Config(dict(default_scope='mmpretrain', model=model, **entries))


def test_a_model_is_built_for_one_process():
    model = build_model(residual(data_preprocessor=dict(mean=[1.0, 2.0, 3.0], std=[4.0, 5.0, 6.0])), 'a.py')
    kinds = {type(module) for module in model.modules()}
    assert nn.BatchNorm2d in kinds and nn.SyncBatchNorm not in kinds
    assert model.data_preprocessor.mean.flatten().tolist() == [1.0, 2.0, 3.0]


def test_a_models_own_preprocessor_has_the_word():
    cfg = residual(data_preprocessor=dict(mean=[1.0] * 3, std=[2.0] * 3))
    cfg.model.data_preprocessor = dict(mean=[7.0] * 3, std=[8.0] * 3)
    assert build_model(cfg, 'a.py').data_preprocessor.mean.flatten().tolist() == [7.0] * 3


def test_an_unknown_model_is_named_with_its_config():
    cfg = residual()
    cfg.model.type = 'ImageClasifier'
    with pytest.raises(UserError, match=r'^The model of a.py cannot be built: ImageClasifier is not in'):
        build_model(cfg, 'a.py')


def test_every_sync_batch_norm_is_replaced_and_nothing_else():
    norms = [dict(type=name, eps=1e-3) for name in ('SyncBN', 'MMSyncBN', 'SyncBatchNorm', 'GN')]
    node = dict(norm_cfg=dict(type='SyncBN'), heads=(dict(norms=norms), None), name='SyncBN')
    replace_sync_batch_norm(node)
    assert node['norm_cfg'] == dict(type='BN') and node['name'] == 'SyncBN'
    assert [norm['type'] for norm in norms] == ['BN', 'BN', 'BN', 'GN'] and norms[0]['eps'] == 1e-3


def test_a_config_and_a_bare_model_get_the_same_input():
    """The preprocessor of mmpretrain, of BGR images, and ours, of RGB ones."""
    configured = build_model(Config.fromfile(DIGITS), 'digits')
    seen = [network_input(model, [PICTURE, PICTURE[::-1].copy()]) for model in (configured, create_model('coc_tiny'))]
    assert_close(*seen, atol=1e-5, rtol=0)
    assert seen[0].shape == (2, 3, 50, 90)
    assert abs(float(seen[0].mean())) < 0.5 and abs(float(seen[0].std()) - 1) < 0.5
    # ImageNet's mean and deviation of red, in the first channel.
    assert float(seen[1][0, 0, 0, 0]) == pytest.approx((PICTURE[0, 0, 0] / 255 - 0.485) / 0.229, abs=1e-5)


def test_the_padding_of_a_models_preprocessor_is_kept():
    options = dict(mean=[0.0] * 3, std=[1.0] * 3, bgr_to_rgb=True, pad_size_divisor=32)
    preprocessor = DETECTION_MODELS.build(dict(type='DetDataPreprocessor', **options))
    batch = network_input(SimpleNamespace(data_preprocessor=preprocessor), [PICTURE])
    assert batch.shape == (1, 3, 64, 96)
    assert torch.equal(batch[0, :, :50, :90], torch.from_numpy(PICTURE).permute(2, 0, 1).float())
    assert batch[0, :, 50:].eq(0).all()
