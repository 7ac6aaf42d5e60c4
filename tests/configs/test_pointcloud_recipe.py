"""The ScanObjectNN configs build the published recipe, number by number (Context Cluster, section 4.4; PointMLP)."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import PARAM_SCHEDULERS, init_default_scope

from pointcloud.registry import MODELS, TRANSFORMS

CONFIGS = Path(__file__).parents[2] / 'configs' / 'pointcloud'
PUBLISHED = {
    'pointmlp-coc_1xb32-250e_scanobjectnn': ('pointmlp_coc', 15326815, 250),
    'pointmlp_1xb32-200e_scanobjectnn': ('pointmlp', 13232079, 200),
    'pointmlp-elite_1xb32-200e_scanobjectnn': ('pointmlp_elite', 709807, 200),
}


@pytest.fixture(params=PUBLISHED, ids=lambda name: name.split('_')[0])
def recipe(request):
    init_default_scope('pointcloud')
    return Config.fromfile(CONFIGS / f'{request.param}.py'), PUBLISHED[request.param]


def test_model_has_the_published_size(recipe):
    cfg, (arch, size, _) = recipe
    with torch.device('meta'):
        model = MODELS.build(cfg.model)
    assert cfg.model.backbone.arch == arch
    assert sum(p.numel() for p in model.parameters()) == size


def test_every_parameter_decays(recipe):
    cfg, _ = recipe
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    optimizer = build_optim_wrapper(model, cfg.optim_wrapper).optimizer
    assert type(optimizer) is torch.optim.SGD
    assert len([p for group in optimizer.param_groups for p in group['params']]) == 4
    for group in optimizer.param_groups:
        assert (group['lr'], group['momentum'], group['weight_decay']) == (0.01, 0.9, 1e-4)


def test_learning_rate_falls_to_a_hundredth_along_a_cosine(recipe):
    cfg, (_, _, epochs) = recipe
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=cfg.optim_wrapper.optimizer.lr)
    (scheduler,) = (PARAM_SCHEDULERS.build(dict(s, optimizer=optimizer)) for s in cfg.param_scheduler)
    assert cfg.train_cfg.max_epochs == epochs
    for epoch in range(epochs):
        published = 1e-4 + (1e-2 - 1e-4) * (1 + math.cos(math.pi * epoch / epochs)) / 2
        assert optimizer.param_groups[0]['lr'] == pytest.approx(published, rel=1e-6), epoch
        optimizer.step()
        scheduler.step()


def test_batches_data_and_target(recipe):
    cfg, _ = recipe
    train, test = cfg.train_dataloader, cfg.test_dataloader
    assert (train.batch_size, train.drop_last, train.sampler.shuffle) == (32, True, True)
    assert (train.dataset.variant, train.dataset.part) == ('PB_T50_RS', 'training')
    assert (test.dataset.variant, test.dataset.part, test.sampler.shuffle) == ('PB_T50_RS', 'test', False)
    assert (cfg.model.head.num_classes, cfg.model.head.dropout, cfg.model.head.label_smoothing) == (15, 0.5, 0.2)


def test_augmentation(recipe):
    cfg, _ = recipe
    first, move, shuffle, _ = (TRANSFORMS.build(t) for t in cfg.train_dataloader.dataset.pipeline)
    assert first.num_points == 1024
    assert (move.scale, move.shift) == ((2 / 3, 3 / 2), (-0.2, 0.2))
    moved = np.array([move({'points': np.zeros((1, 3), np.float32)})['points'][0] for _ in range(2000)])
    assert moved.min(axis=0) == pytest.approx([-0.2] * 3, abs=2e-3)
    assert moved.max(axis=0) == pytest.approx([0.2] * 3, abs=2e-3)
    assert type(shuffle).__name__ == 'ShufflePoints'
    kept = [TRANSFORMS.build(t) for t in cfg.test_dataloader.dataset.pipeline]
    assert [type(t).__name__ for t in kept] == ['TakeFirstPoints', 'PackPoints']
    assert kept[0].num_points == 1024


def test_nothing_is_chosen_on_the_test_data(recipe):
    cfg, _ = recipe
    assert 'save_best' not in cfg.default_hooks.checkpoint
    assert cfg.val_dataloader.dataset == cfg.test_dataloader.dataset


def test_the_validation_config_keeps_the_test_data_for_the_end():
    cfg = Config.fromfile(CONFIGS / 'pointmlp-coc_1xb32-250e_scanobjectnn-val.py')
    train, val = cfg.train_dataloader.dataset, cfg.val_dataloader.dataset
    assert (train.part, val.part, cfg.test_dataloader.dataset.part) == ('training', 'training', 'test')
    assert {**train.validation, 'keep': None} == {**val.validation, 'keep': None}
    assert (train.validation.keep, val.validation.keep) == ('train', 'val')
    assert 'validation' not in cfg.test_dataloader.dataset
    assert val.pipeline == cfg.test_dataloader.dataset.pipeline
    assert cfg.default_hooks.checkpoint.save_best == 'OA'
