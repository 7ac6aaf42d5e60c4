"""Small trainings through tools/train.py itself, with every kind of randomness that the recipes have."""

import importlib.util
import itertools
import multiprocessing
import sys
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from PIL import Image

from coc_core.checkpoints import read
from coc_core.mm.cli.start import run_tool

TRAIN = Path(__file__).parents[4] / 'tools' / 'train.py'
CONFIG = """
default_scope = 'mmpretrain'
custom_imports = dict(imports=['mmpretrain_plugin'])
model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='ContextCluster', out_indices=(1,), output_norm='classification', drop_path_rate=0.3,
        arch=dict(depths=(1, 1), dims=(8, 16), mlp_ratios=2, heads=2, head_dim=4, center_grid=2, region_grid=1)),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='LinearClsHead', num_classes=2, in_channels=16, loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1)),
    data_preprocessor=dict(num_classes=2, mean=[127.5] * 3, std=[40.0] * 3, to_onehot=True),
    train_cfg=dict(augments=[dict(type='Mixup', alpha=0.8), dict(type='CutMix', alpha=1.0)]))
train_pipeline = [
    dict(type='LoadImageFromFile'), dict(type='RandomResizedCrop', scale=32), dict(type='RandomFlip', prob=0.5),
    dict(
        type='RandAugment', policies='timm_increasing', num_policies=2, total_level=10, magnitude_level=9,
        magnitude_std=0.5),
    dict(type='RandomErasing', erase_prob=0.5, mode='rand', min_area_ratio=0.1, max_area_ratio=0.3),
    dict(type='PackInputs')]
val_pipeline = [dict(type='LoadImageFromFile'), dict(type='PackInputs')]
train_dataloader = dict(
    batch_size=4, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(type='CustomDataset', data_root='images', data_prefix='train', pipeline=train_pipeline))
val_dataloader = dict(
    batch_size=4, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type='CustomDataset', data_root='images', data_prefix='val', pipeline=val_pipeline))
val_evaluator = dict(type='Accuracy', topk=1)
val_cfg = dict()
train_cfg = dict(by_epoch=True, max_epochs=3)
optim_wrapper = dict(optimizer=dict(type='AdamW', lr=0.01), clip_grad=dict(max_norm=1.0))
param_scheduler = [dict(type='CosineAnnealingLR', T_max=3, by_epoch=True, convert_to_iter_based=True, eta_min=1e-5)]
default_hooks = dict(
    logger=dict(type='LoggerHook', interval=1),
    checkpoint=dict(type='CheckpointHook', interval=1, max_keep_ckpts=1, save_best='accuracy/top1', rule='greater'))
custom_hooks = []
randomness = dict(seed=3)
"""
BY_ITERATION = """
train_cfg = dict(_delete_=True, type='IterBasedTrainLoop', max_iters=15, val_interval=5)
train_dataloader = dict(sampler=dict(type='InfiniteSampler'))
param_scheduler = [dict(type='PolyLR', eta_min=1e-5, power=0.9, begin=0, end=15, by_epoch=False)]
default_hooks = dict(checkpoint=dict(interval=5, by_epoch=False))
"""

_BOOKKEEPING = ('best_score', 'last_validation', 'keep_ckpt_ids')


@HOOKS.register_module()
class DuringStep(Hook):
    """Calls what a test has put into `actions` for a step, in the middle of it."""

    actions: ClassVar[dict] = {}

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.actions.get(runner.iter, lambda runner: None)(runner)

    def before_val_iter(self, runner, batch_idx, data_batch=None):
        self.actions.get(f'val {runner.iter}', lambda runner: None)(runner)


class Project:
    """A folder with a config and images, in which trainings run in this process."""

    numbers = itertools.count()

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        spec = importlib.util.spec_from_file_location('train_tool', TRAIN)
        self._tool = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(self._tool)

    def config(self, name: str, text: str = '') -> str:
        path = self.folder / f'{name}.py'
        path.write_text(f"_base_ = 'base.py'\n{text}" if text else CONFIG)
        return str(path)

    def train(self, config: str, work: str, *arguments: str, actions: dict | None = None, hooks: tuple = ()) -> int:
        """Train; return the exit code."""
        DuringStep.actions = actions or {}
        argv, sys.argv = sys.argv, ['train.py', config, '--work-dir', str(self.folder / work), *arguments]
        try:
            args = self._tool.parse_args()
        finally:
            sys.argv = argv
        hooks = [*Config.fromfile(config).get('custom_hooks', []), dict(type='DuringStep'), *hooks]
        # mmengine's loggers and visualizers live as long as the process, by this name.
        args.cfg_options |= dict(custom_hooks=hooks, experiment_name=f'run{next(self.numbers)}')
        try:
            return run_tool(self._tool.train, args)
        finally:
            # Data workers of a tool end with it; this process goes on, and would wait five seconds for each.
            for worker in multiprocessing.active_children():
                worker.terminate()

    def state(self, work: str, name: str) -> dict:
        return read(self.folder / work / name)


def write_images(folder: Path) -> None:
    """Write 20 dark and bright pictures to train with and ten to validate."""
    random = np.random.default_rng(0)
    for split, count in (('train', 10), ('val', 5)):
        for label in range(2):
            images = folder / 'images' / split / f'class{label}'
            images.mkdir(parents=True)
            for index in range(count):
                pixels = random.integers(90 * label, 90 * label + 160, (40, 40, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(images / f'{index}.png')


def _same(one, other, where, found):
    if isinstance(one, torch.Tensor):
        if not torch.equal(one, other):
            found.append(where)
    elif isinstance(one, dict):
        if one.keys() != other.keys():
            found.append(f'{where}: {one.keys() ^ other.keys()}')
        for key in one.keys() & other.keys():
            _same(one[key], other[key], f'{where}.{key}', found)
    elif isinstance(one, (list, tuple)) and len(one) == len(other):
        for i, (a, b) in enumerate(zip(one, other, strict=True)):
            _same(a, b, f'{where}.{i}', found)
    elif isinstance(one, np.ndarray):
        if not np.array_equal(one, other):
            found.append(where)
    elif one != other:
        found.append(f'{where}: {one!r} != {other!r}')


def differences(one: dict, other: dict) -> list[str]:
    """Name what differs between two training states; the time that things took does not count."""
    found: list[str] = []
    for name in ('epoch', 'iter', 'seed', 'run'):
        _same(one['meta'][name], other['meta'][name], name, found)
    parts = ('state_dict', 'optimizer', 'param_schedulers', 'ema_state_dict')
    for part in parts:
        _same(one.get(part), other.get(part), part, found)
    scalars = [
        {name: (buffer.data[0], buffer.data[1]) for name, buffer in state['message_hub']['log_scalars'].items()
         if not name.endswith(('time', 'memory', 'eta'))}
        for state in (one, other)
    ]  # fmt: skip
    _same(*scalars, 'log', found)
    infos = [
        {name: value for name, value in state['message_hub']['runtime_info'].items() if name in _BOOKKEEPING}
        for state in (one, other)
    ]
    _same(*infos, 'info', found)
    return found
