"""The classifier of the digits config: initialization, a training step in every precision, predictions."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample

import mmpretrain_plugin  # noqa: F401

DIGITS = Path(__file__).parents[2] / 'configs' / 'classification' / 'coc-tiny_1xb32-12e_digits.py'


def build():
    init_default_scope('mmpretrain')
    cfg = Config.fromfile(DIGITS)
    torch.manual_seed(0)
    model = MODELS.build(dict(cfg.model, data_preprocessor=cfg.data_preprocessor))
    model.init_weights()
    return model


def batch(model, *, training):
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    samples = [DataSample().set_gt_label(label) for label in (3, 7)]
    data = model.data_preprocessor(dict(inputs=images, data_samples=samples), training)
    return data['inputs'], data['data_samples']


def test_the_head_starts_with_the_published_deviation():
    head = build().head.fc
    weight = head.weight.detach()
    # mmpretrain's own is half of it; of 3,200 numbers it is known within a few percent.
    assert weight.shape == (10, 320) and head.bias.eq(0).all()
    assert float(weight.std()) == pytest.approx(0.02, rel=0.05) and abs(float(weight.mean())) < 2e-3


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_it_trains_and_predicts_in_every_precision(dtype):
    model = build().train()
    inputs, samples = batch(model, training=True)
    with torch.autocast('cpu', dtype=dtype, enabled=dtype != torch.float32):
        loss, _ = model.parse_losses(model(inputs, samples, mode='loss'))
    loss.backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []
    inputs, samples = batch(model, training=False)
    with torch.no_grad(), torch.autocast('cpu', dtype=dtype, enabled=dtype != torch.float32):
        found = model.eval()(inputs, samples, mode='predict')
    for sample, label in zip(found, (3, 7), strict=True):
        assert sample.gt_label == label and sample.pred_score.shape == (10,)
        assert float(sample.pred_score.float().sum()) == pytest.approx(1, abs=0.01)
        assert int(sample.pred_label) == int(sample.pred_score.argmax())


def test_images_of_any_size_are_classified():
    model = build().eval()
    with torch.no_grad():
        assert model(torch.randn(1, 3, 75, 110)).shape == (1, 10)
