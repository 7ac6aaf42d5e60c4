"""What the tools change in a config where there is no GPU."""

import argparse
import os
from pathlib import Path

import pytest
import torch

from coc_core.mm.cli import running
from coc_core.mm.configs import load_config

CONFIG = Path(__file__).parents[4] / 'configs' / 'classification' / 'coc-tiny_8xb128_in1k.py'


@pytest.mark.skipif(torch.cuda.is_available(), reason='about machines without a GPU')
@pytest.mark.parametrize(
    ('launcher', 'dtype', 'has_bfloat16', 'wrapper'),
    [
        ('none', 'float16', True, 'OptimWrapper'),
        ('pytorch', 'bfloat16', False, 'OptimWrapper'),
        ('none', 'bfloat16', True, 'Bfloat16OptimWrapper'),
    ],
)
def test_the_imagenet_recipe_fits_a_cpu(tmp_path, monkeypatch, capfd, launcher, dtype, has_bfloat16, wrapper):
    monkeypatch.setattr(torch.cpu, 'get_capabilities', lambda: dict(amx_bf16=has_bfloat16))
    for folder in (tmp_path / split / f'n{label:08}' for split in ('train', 'val') for label in range(1000)):
        folder.mkdir(parents=True)
        (folder / 'a.jpg').touch()
    roots = {f'{loader}_dataloader.dataset.data_root': str(tmp_path) for loader in ('train', 'val', 'test')}
    cfg = load_config(str(CONFIG), {**roots, 'optim_wrapper.dtype': dtype})
    args = argparse.Namespace(config=str(CONFIG), launcher=launcher, work_dir=str(tmp_path / 'work'))
    running.prepare(cfg, args, ['train', 'val'])
    assert cfg.optim_wrapper.type == wrapper and not {'loss_scale', 'dtype'} & set(cfg.optim_wrapper)
    assert cfg.optim_wrapper.optimizer.lr == pytest.approx(1e-3)
    assert ('training runs in float32' in capfd.readouterr().err) == (wrapper == 'OptimWrapper')
    assert cfg.train_dataloader.num_workers == min(5, len(os.sched_getaffinity(0)))
    assert cfg.env_cfg.dist_cfg.backend == ('gloo' if launcher == 'pytorch' else 'nccl')
