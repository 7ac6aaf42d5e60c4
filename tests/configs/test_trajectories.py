"""Ten steps of AdamW with the parameter groups of the recipes end where the published code ends."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from mmpretrain.registry import MODELS
from torch.nn import functional as F
from torch.testing import assert_close

import coc_core.model
import mmpretrain_plugin  # noqa: F401
from coc_core.checkpoints import from_official, to_official
from coc_core.images import append_coordinates

CONFIGS = Path(__file__).parents[2] / 'configs' / 'classification'
IN1K, DIGITS = 'coc-tiny_8xb128_in1k.py', 'coc-tiny_1xb32-12e_digits.py'


@pytest.fixture(autouse=True)
def coordinates_in_float32(monkeypatch):
    """The published code made these runs with coordinates in float32 (golden/README.md)."""

    def append(images):
        return torch.cat([images, append_coordinates(images.float())[:, -2:].to(images.dtype)], dim=1)

    monkeypatch.setattr(coc_core.model, 'append_coordinates', append)


def load_config(name):
    init_default_scope('mmpretrain')
    return Config.fromfile(CONFIGS / name)


def optimizer_of(cfg, model):
    """The optimizer that a config describes; the mixed precision around it is not what is measured."""
    mixed = ('type', 'dtype', 'loss_scale')
    return build_optim_wrapper(model, {k: v for k, v in cfg.optim_wrapper.items() if k not in mixed})


def assert_ends_as_published(case, published, losses, trained):
    assert_close(torch.tensor(losses, dtype=torch.float64), case.expected['losses'], rtol=0, atol=1e-10)
    final = to_official(trained)
    probes = [
        (final[key].view_as(value) * case.tensor(f'probe {key}', value.shape)).sum() for key, value in published.items()
    ]
    assert_close(torch.stack(probes), case.expected['probes'], rtol=0, atol=1e-8)


@pytest.mark.parametrize(
    ('name', 'denominator', 'recipe', 'impl'),
    [
        ('trajectory_coc_tiny', 'similarity', IN1K, 'plain'),
        ('trajectory_coc_tiny', 'similarity', IN1K, 'cpu'),
        ('trajectory_v1_coc_tiny', 'count', DIGITS, 'cpu'),
    ],
)
def test_classifiers_train_as_published(golden, name, denominator, recipe, impl):
    case, cfg = golden(name), load_config(recipe)
    cfg.model.backbone.update(drop_path_rate=0.0, denominator=denominator, impl=impl)
    cfg.model.head.num_classes = case.case['classes']
    model = MODELS.build(cfg.model).double().train()
    published = case.published_state_dict('coc_tiny')
    for key in ('head.weight', 'head.bias'):
        published[key] = case.parameter(key, (case.case['classes'], *published[key].shape[1:]))
    weights = from_official(published).items()
    model.load_state_dict({k.replace('head.', 'head.fc.') if 'head.' in k else f'backbone.{k}': v for k, v in weights})
    optimizer = optimizer_of(cfg, model)
    losses = []
    for step in range(10):
        labels = (torch.arange(4) * 7 + step) % case.case['classes']
        loss = F.cross_entropy(model(case.image(step), mode='tensor'), labels)
        losses.append(loss.item())
        optimizer.update_params(loss)
    trained = {k.replace('head.fc.', 'head.').removeprefix('backbone.'): v for k, v in model.state_dict().items()}
    assert_ends_as_published(case, published, losses, trained)


def test_a_dense_backbone_trains_as_published(golden):
    case, cfg = golden('trajectory_dense_coc_small_25'), load_config(IN1K)
    model = MODELS.build(dict(type='ContextCluster', arch='coc_small', center_grid=5)).double().train()
    published = case.published_state_dict('dense_coc_small')
    model.load_state_dict(from_official(published))
    optimizer = optimizer_of(cfg, model)
    losses = []
    for step in range(10):
        outputs = model(case.image(step))
        targets = [case.tensor(f'target {step} {i}', output.shape) for i, output in enumerate(outputs)]
        loss = sum(F.mse_loss(output, target) for output, target in zip(outputs, targets, strict=True))
        losses.append(loss.item())
        optimizer.update_params(loss)
    assert_ends_as_published(case, published, losses, model.state_dict())
