"""What `tools/train.py` and `tools/test.py` share: options, the config, the launcher, errors in one sentence."""

from __future__ import annotations

import argparse
import gc
import os
import os.path as osp
import re
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config, DictAction
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from coc_core.checkpoints import CheckpointError
from coc_core.mm.checked_pipeline import check_samples
from coc_core.mm.config_checks import check_option_keys, near_names
from coc_core.mm.data_checks import check_data
from coc_core.mm.errors import LaunchError
from coc_core.mm.progress import ProgressBarHook
from coc_core.mm.requirements import check_openmmlab
from coc_core.mm.safe_loading import install_safe_loader

_TASK_PACKAGES = ('mmpretrain', 'mmdet', 'mmseg')
_LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')
_RANK_VARIABLES = {
    'slurm': ('SLURM_PROCID', 'SLURM_NTASKS', 'SLURM_LOCALID'),
    'mpi': ('OMPI_COMM_WORLD_RANK', 'OMPI_COMM_WORLD_SIZE', 'OMPI_COMM_WORLD_LOCAL_RANK'),
}
_SYNC_BATCH_NORMS = {'SyncBN': 'BN', 'MMSyncBN': 'BN', 'SyncBatchNorm': 'BN'}


class _OptionAction(DictAction):  # type: ignore[misc, unused-ignore]
    """mmengine's key=value pairs; a word without `=` is a usage error and not a stack trace."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        words = [word for word in values if '=' not in word]
        if words:
            raise argparse.ArgumentError(self, f'{words[0]!r} is not of the form key=value')
        super().__call__(parser, namespace, values, option_string)


def add_config_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options that change a config and say how errors are shown."""
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=_OptionAction,
        default={},
        metavar='KEY=VALUE',
        help='change entries of the config, e.g. train_cfg.max_epochs=10 model.backbone.arch=coc_small',
    )
    parser.add_argument('--debug', action='store_true', help='show stack traces instead of one sentence')


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options that training and testing have in common."""
    parser.add_argument('--work-dir', help='folder for logs and results (default: work_dirs/NAME-OF-THE-CONFIG)')
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none',
        help='who started the processes (tools/dist_*.sh and tools/slurm_*.sh say it themselves)',
    )
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)
    add_config_options(parser)


def run_tool(main: Callable[[argparse.Namespace], None], args: argparse.Namespace) -> int:
    """Runs a tool and tells a user's mistake in one sentence on stderr.

    Returns:
        The exit code: 0, or 2 after such a mistake.
    """
    os.environ.setdefault('LOCAL_RANK', str(getattr(args, 'local_rank', 0)))
    try:
        main(args)
    except (LaunchError, CheckpointError, ImportError) as error:
        if args.debug:
            traceback.print_exc()
        # A worker process puts its stack trace before the sentence.
        sentence = str(error).rpartition(f'{LaunchError.__name__}: ')[2]
        _tell(f'error: {" ".join(sentence.split())}')
        return 2
    else:
        _leave_process_group()
    return 0


def _leave_process_group() -> None:
    if not torch.distributed.is_available() or not torch.distributed.is_initialized():
        return
    # Gloo's threads abort a process whose peer is gone, or that ends while a wrapped model still holds the group.
    torch.distributed.barrier()
    gc.collect()
    torch.distributed.destroy_process_group()


def _tell(sentence: str) -> None:
    """Prints once per node; another process speaks only where its first one has nothing to say."""
    if int(os.environ.get('LOCAL_RANK', '0')) > 0:
        # The first process's failure ends this one meanwhile.
        time.sleep(10)
    print(sentence, file=sys.stderr, flush=True)


def load_config(path: str, options: Mapping[str, Any] | None = None) -> Config:
    """Reads a config, merges `--cfg-options` into it and checks that its task's packages are usable.

    Raises:
        LaunchError: There is no such file, it is not valid, or an option's key is unknown.
        ImportError: A package that the config's scope needs is missing or unusable.
    """
    file = Path(path)
    if not file.is_file():
        folder = file.parent
        names = [str(item) for item in folder.glob('*.py')] if folder.is_dir() else []
        hint = near_names(str(file), names) if folder.is_dir() else f' (there is no folder {folder} either)'
        raise LaunchError(f'The config {path} does not exist{hint}.')
    try:
        cfg = Config.fromfile(path)
    except Exception as error:
        # What the file imports or inherits from fails in its own way where a package is missing.
        check_openmmlab(*_packages_in(file))
        place = f' in line {error.lineno}' if isinstance(error, SyntaxError) else ''
        raise LaunchError(f'The config {path} is not valid: {type(error).__name__}{place}: {error}') from error
    check_openmmlab(*(name for name in _TASK_PACKAGES if name == cfg.get('default_scope')))
    if options:
        check_option_keys(cfg, options)
        cfg.merge_from_dict(dict(options))
    return cfg


def _packages_in(file: Path) -> list[str]:
    text = file.read_text(encoding='utf-8', errors='replace')
    return [name for name in _TASK_PACKAGES if re.search(rf'\b{name}(::|_plugin\b|\.)', text)]


def prepare(cfg: Config, args: argparse.Namespace, phases: Sequence[str]) -> None:
    """Fits a config to the command line and to this machine, and checks that its data is there.

    Raises:
        LaunchError: Data is missing or wrong.
    """
    cfg.launcher = args.launcher
    cfg.work_dir = args.work_dir or cfg.get('work_dir') or osp.join('work_dirs', Path(args.config).stem)
    check_data(cfg, phases, contents=_is_first_process(cfg.launcher))
    for name in _LOADERS:
        if isinstance(cfg.get(name), Mapping):
            _complete_loader(cfg, cfg[name])
    if not torch.cuda.is_available():
        _fit_to_cpu(cfg)
    install_safe_loader()


def _is_first_process(launcher: str) -> bool:
    rank = _RANK_VARIABLES.get(launcher, ('RANK',))[0]
    return os.environ.get(rank, '0') == '0'


def _complete_loader(cfg: Config, loader: Any) -> None:
    if cfg.get('default_scope') == 'mmpretrain':
        # mmpretrain's own tools add these, and its data configs rely on them.
        loader.setdefault('collate_fn', dict(type='default_collate'))
        loader.setdefault('pin_memory', True)
        loader.setdefault('persistent_workers', True)
    if not loader.get('num_workers'):
        loader['persistent_workers'] = False
    if not torch.cuda.is_available():
        loader['pin_memory'] = False


def _fit_to_cpu(cfg: Config) -> None:
    replace_sync_batch_norm(cfg.get('model'))
    cfg.pop('sync_bn', None)
    _train_in_full_precision(cfg)
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


def _train_in_full_precision(cfg: Config) -> None:
    """Mixed precision needs a GPU in mmengine; a recipe that asks for it runs in float32 elsewhere, and says so."""
    wrapper = cfg.get('optim_wrapper') or {}
    if wrapper.get('type') != 'AmpOptimWrapper':
        return
    if int(os.environ.get('LOCAL_RANK', '0')) == 0:
        print('No GPU: the config asks for mixed precision, training runs in float32.', file=sys.stderr, flush=True)
    cfg.optim_wrapper = {k: v for k, v in wrapper.items() if k not in ('dtype', 'loss_scale', 'use_fp64')}
    cfg.optim_wrapper.type = 'OptimWrapper'


def replace_sync_batch_norm(node: Any) -> None:
    """SyncBN raises under gloo; without a GPU it becomes the batch norm of one process."""
    if isinstance(node, Mapping):
        if node.get('type') in _SYNC_BATCH_NORMS:
            node['type'] = _SYNC_BATCH_NORMS[node['type']]  # type: ignore[index]
        for child in node.values():
            replace_sync_batch_norm(child)
    elif isinstance(node, (list, tuple)):
        for child in node:
            replace_sync_batch_norm(child)


def start_process_group(cfg: Config) -> None:
    """Joins the other processes where there is no GPU; mmengine's own start sets a CUDA device first."""
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
    seconds = cfg.env_cfg.dist_cfg.get('timeout', 1800)
    torch.distributed.init_process_group('gloo', timeout=timedelta(seconds=seconds))


def _variable(name: str, launcher: str) -> str:
    if name not in os.environ:
        raise LaunchError(
            f'--launcher {launcher} needs the environment variable {name}, which that launcher sets: '
            'start with tools/dist_*.sh or tools/slurm_*.sh, or leave --launcher out.'
        )
    return os.environ[name]


def build_runner(cfg: Config, debug: bool = False) -> Runner:
    """Builds mmengine's runner, with a progress bar where there is a terminal.

    Raises:
        LaunchError: A part of the config cannot be built.
    """
    start_process_group(cfg)
    try:
        runner = RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)
    except (AssertionError, AttributeError, KeyError, TypeError, ValueError, OSError) as error:
        advice = '' if debug else ' (--debug shows where)'
        raise LaunchError(f'The config cannot be built: {type(error).__name__}: {error}{advice}') from error
    runner.register_hook(ProgressBarHook())
    return runner


def build_loops(runner: Runner, phases: Sequence[str]) -> None:
    """Build the data sets and loops of these phases before anything runs, and have their samples checked.

    Raises:
        LaunchError: A data set cannot be loaded, or has nothing in it.
    """
    for phase in phases:
        loop = getattr(runner, f'_{phase}_loop')
        if loop is None:
            continue
        try:
            loop = getattr(runner, f'build_{phase}_loop')(loop)
        except (AssertionError, AttributeError, KeyError, TypeError, ValueError, IndexError, OSError) as error:
            raise LaunchError(
                f'The {phase} data or its evaluation cannot be set up: {type(error).__name__}: {error} '
                '(--debug shows where).'
            ) from error
        setattr(runner, f'_{phase}_loop', loop)
        dataset = loop.dataloader.dataset
        if len(dataset) == 0:
            raise LaunchError(f'The {phase} data has no samples that can be used: tools/check_data.py says why.')
        check_samples(dataset)
