"""Adapts a config to the command line and the machine, and builds mmengine's runner from it."""

from __future__ import annotations

import argparse
import os
import os.path as osp
import subprocess
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dataset import InfiniteSampler
from mmengine.dist import get_world_size
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from coc_core.errors import UserError
from coc_core.mm.cli.console import QuietRunner
from coc_core.mm.data_checks.batches import check_batches, is_of_empty_data, nothing_usable
from coc_core.mm.data_checks.checked_pipeline import check_samples
from coc_core.mm.data_checks.checks import check_data
from coc_core.mm.fault_tolerance.file_backend import keep_logging
from coc_core.mm.fault_tolerance.stopping import peer_timeout, shield_workers
from coc_core.mm.mistakes import building
from coc_core.mm.mixed_precision import Bfloat16OptimWrapper, processor_has_bfloat16
from coc_core.mm.models import replace_sync_batch_norm
from coc_core.mm.safe_loading import install_safe_loader
from coc_core.mm.task import task_of

_LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')
_RANK_VARIABLES = {
    'slurm': ('SLURM_PROCID', 'SLURM_NTASKS', 'SLURM_LOCALID'),
    'mpi': ('OMPI_COMM_WORLD_RANK', 'OMPI_COMM_WORLD_SIZE', 'OMPI_COMM_WORLD_LOCAL_RANK'),
}


def prepare(cfg: Config, args: argparse.Namespace, phases: Sequence[str]) -> None:
    """Adapt a config to the command line and to this machine, and check that its data is there.

    Raises:
        UserError: Data is missing or wrong.
    """
    cfg.launcher = args.launcher
    cfg.work_dir = args.work_dir or cfg.get('work_dir') or osp.join('work_dirs', Path(args.config).stem)
    check_data(cfg, phases, contents=is_first_process(cfg.launcher))
    for name in _LOADERS:
        if isinstance(cfg.get(name), Mapping):
            _complete_loader(cfg[name], task_of(cfg).loader_defaults)
    if not torch.cuda.is_available():
        _adapt_to_cpu(cfg)
    install_safe_loader()


def is_first_process(launcher: str) -> bool:
    """Whether this is the first of the processes that a launcher has started, before they have met."""
    rank = _RANK_VARIABLES.get(launcher, ('RANK',))[0]
    return os.environ.get(rank, '0') == '0'


def process_count(launcher: str) -> int:
    """Return the number of processes that a launcher has started, before they have met."""
    name = _RANK_VARIABLES.get(launcher, ('', 'WORLD_SIZE'))[1]
    return 1 if launcher == 'none' else int(os.environ.get(name, '1'))


def _complete_loader(loader: Any, defaults: Mapping[str, Any]) -> None:
    for key, value in defaults.items():
        loader.setdefault(key, value)
    # More only wait for each other, and torch warns; results do not depend on the number.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1
    loader['num_workers'] = min(loader.get('num_workers') or 0, cores)
    if not loader['num_workers']:
        loader['persistent_workers'] = False
    if not torch.cuda.is_available():
        loader['pin_memory'] = False


def _adapt_to_cpu(cfg: Config) -> None:
    replace_sync_batch_norm(cfg.get('model'))
    cfg.pop('sync_bn', None)
    _adapt_mixed_precision(cfg)
    if cfg.launcher == 'none':
        return
    environment = cfg.get('env_cfg') or {}
    cfg.env_cfg = dict(environment, dist_cfg=dict(environment.get('dist_cfg') or {}, backend='gloo'))
    # mmengine gives every process a device id, which DistributedDataParallel refuses on the CPU.
    wrapper = dict(
        type='MMDistributedDataParallel',
        broadcast_buffers=False,
        find_unused_parameters=cfg.get('find_unused_parameters', False),
    )
    cfg.model_wrapper_cfg = {**wrapper, **(cfg.get('model_wrapper_cfg') or {}), 'device_ids': None}


def _adapt_mixed_precision(cfg: Config) -> None:
    """Put ours in the place of mmengine's mixed precision, which needs a GPU: bfloat16, or float32 and a word of it."""
    wrapper = cfg.get('optim_wrapper') or {}
    if wrapper.get('type') != 'AmpOptimWrapper':
        return
    mixed = wrapper.get('dtype') == 'bfloat16' and processor_has_bfloat16()
    if not mixed and int(os.environ.get('LOCAL_RANK', '0')) == 0:
        print('No GPU: the config asks for mixed precision, training runs in float32.', file=sys.stderr, flush=True)
    cfg.optim_wrapper = {k: v for k, v in wrapper.items() if k not in ('dtype', 'loss_scale', 'use_fsdp')}
    cfg.optim_wrapper.type = Bfloat16OptimWrapper.__name__ if mixed else 'OptimWrapper'


def start_process_group(cfg: Config) -> None:
    """Join the other processes where there is no GPU; mmengine's own start sets a CUDA device first.

    Raises:
        UserError: The launcher has not set its environment variables.
    """
    if cfg.launcher == 'none' or torch.cuda.is_available():
        return
    if cfg.launcher in _RANK_VARIABLES:
        for name, source in zip(('RANK', 'WORLD_SIZE', 'LOCAL_RANK'), _RANK_VARIABLES[cfg.launcher], strict=True):
            os.environ[name] = _variable(source, cfg.launcher)
        os.environ.setdefault('MASTER_PORT', '29500')
    if cfg.launcher == 'slurm' and 'MASTER_ADDR' not in os.environ:
        hosts = ['scontrol', 'show', 'hostnames', _variable('SLURM_NODELIST', 'slurm')]
        os.environ['MASTER_ADDR'] = subprocess.run(hosts, check=True, capture_output=True, text=True).stdout.split()[0]
    for name in ('RANK', 'WORLD_SIZE', 'MASTER_ADDR', 'MASTER_PORT'):
        _variable(name, cfg.launcher)
    torch.distributed.init_process_group('gloo', timeout=peer_timeout(cfg))


def _variable(name: str, launcher: str) -> str:
    if name not in os.environ:
        raise UserError(
            f'--launcher {launcher} needs the environment variable {name}, which that launcher sets: '
            'start with tools/dist_*.sh or tools/slurm_*.sh, or leave --launcher out.'
        )
    return os.environ[name]


def build_runner(cfg: Config, name: str) -> Runner:
    """Build mmengine's runner.

    Args:
        cfg: The config.
        name: What messages call it.

    Raises:
        UserError: A name in the config is unknown, or a value impossible.
    """
    start_process_group(cfg)
    # mmengine passes it to its own wrapper.
    warnings.filterwarnings('ignore', message='`broadcast_buffers` is deprecated')
    with building(f'what {name} describes'):
        runner: Runner = RUNNERS.build(cfg) if 'runner_type' in cfg else QuietRunner.from_cfg(cfg)
    keep_logging(runner.logger)
    return runner


def build_loops(runner: Runner, phases: Sequence[str]) -> None:
    """Build the data sets and loops of these phases before anything runs, and have their samples checked.

    Raises:
        UserError: A name in the config is unknown, a data set has nothing in it, or makes no batch.
    """
    for phase in phases:
        loop = getattr(runner, f'_{phase}_loop')
        if loop is None:
            continue
        with building(f'the {phase} data and its evaluation'):
            try:
                loop = getattr(runner, f'build_{phase}_loop')(loop)
            except ValueError as error:
                if is_of_empty_data(error):
                    raise UserError(nothing_usable(phase)) from error
                raise
        setattr(runner, f'_{phase}_loop', loop)
        dataset = loop.dataloader.dataset
        if len(dataset) == 0:
            raise UserError(nothing_usable(phase))
        if phase != 'train' or not isinstance(loop.dataloader.batch_sampler.sampler, InfiniteSampler):
            check_batches(phase, len(dataset), runner.cfg[f'{phase}_dataloader'], get_world_size())
        check_samples(dataset)
        shield_workers(loop.dataloader)
