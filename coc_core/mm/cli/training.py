"""The options that only training has."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.runner import Runner

from coc_core.checkpoints.reading import check_file
from coc_core.errors import UserError
from coc_core.files import check_writable
from coc_core.mm.cli.running import is_first_process, process_count
from coc_core.mm.fault_tolerance.locking import lock
from coc_core.mm.fault_tolerance.loops import ResumableEpochLoop, ResumableIterLoop
from coc_core.mm.fault_tolerance.states import TrainingState, check_same_data, find_start, keep_run
from coc_core.mm.mixed_precision import processor_has_bfloat16

_LOOPS = {'EpochBasedTrainLoop': ResumableEpochLoop.__name__, 'IterBasedTrainLoop': ResumableIterLoop.__name__}


def apply_options(cfg: Config, args: argparse.Namespace) -> None:
    """Write ``--amp``, ``--no-validate`` and ``--auto-scale-lr`` into a config.

    Raises:
        UserError: The config cannot be trained, or an option does not fit it or this machine.
    """
    for name in ('train_dataloader', 'train_cfg', 'optim_wrapper'):
        if not cfg.get(name):
            raise UserError(f'{args.config} cannot be trained: it has no {name}.')
    if args.no_validate:
        cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    if args.amp or args.amp_dtype:
        dtype = args.amp_dtype or cfg.optim_wrapper.get('dtype', 'float16')
        if not torch.cuda.is_available():
            _check_trains_on_cpu(dtype)
        cfg.optim_wrapper.type = 'AmpOptimWrapper'
        cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')
        cfg.optim_wrapper.dtype = dtype
    if args.auto_scale_lr:
        if not cfg.get('auto_scale_lr', {}).get('base_batch_size'):
            raise UserError(f'--auto-scale-lr needs auto_scale_lr.base_batch_size, which {args.config} does not set.')
        cfg.auto_scale_lr.enable = True


def _check_trains_on_cpu(dtype: str) -> None:
    if dtype != 'bfloat16':
        raise UserError(f'--amp in {dtype} needs a GPU: on a CPU, --amp-dtype bfloat16 is the mixed precision.')
    if not processor_has_bfloat16():
        raise UserError(
            '--amp-dtype bfloat16 needs a GPU, or a processor with instructions for bfloat16 (AVX512-BF16 or AMX), '
            'which this one has not: leave --amp and --amp-dtype out to train in float32.'
        )


def apply_start(cfg: Config, args: argparse.Namespace) -> TrainingState | None:
    """Write into a config what training goes on or starts from, and loops that can go on at any step.

    Returns:
        The state to go on from, or None for a fresh start.

    Raises:
        UserError: The work folder cannot be written or holds another training, or a checkpoint cannot be gone on from.
        Fault: Another process trains there.
    """
    _use_resumable_loops(cfg)
    check_writable(Path(cfg.work_dir))
    if is_first_process(cfg.get('launcher', 'none')):
        lock(cfg.work_dir)
    state = find_start(cfg, args.resume, overwrite=args.overwrite)
    cfg.resume = state is not None
    if state is not None:
        cfg.load_from = str(state.path)
        keep_run(cfg, state, process_count(cfg.launcher))
    elif isinstance(cfg.get('load_from'), str) and '://' not in cfg.load_from:
        check_file(Path(cfg.load_from).expanduser())
    return state


def _use_resumable_loops(cfg: Config) -> None:
    """Put our loops in the place of mmengine's two; a loop of the user's own stays."""
    train = cfg.train_cfg
    kind = train.get('type')
    if kind is None and 'by_epoch' in train:
        kind = 'EpochBasedTrainLoop' if train.pop('by_epoch') else 'IterBasedTrainLoop'
    if kind in _LOOPS:
        train.type = _LOOPS[kind]


def starting_point(runner: Runner, resume: str | None, state: TrainingState | None) -> tuple[str, bool] | None:
    """Say what training goes on from; return the checkpoint that is loaded, if any, and whether all of it must fit.

    One to go on from must be this model's. One to start from may have a head for other classes, for example: what does
    not fit starts fresh, and the log names it.
    """
    if not isinstance(runner.train_loop, (ResumableEpochLoop, ResumableIterLoop)):
        runner.logger.warning(
            f'{type(runner.train_loop).__name__} is a loop of its own: a resumed training differs from one in one go.'
        )
    if state is not None:
        check_same_data(runner, state)
        for note in state.notes:
            runner.logger.warning(note)
        runner.logger.info(f'Training goes on from {state.path}, after {state.meta["iter"]} steps.')
        return str(state.path), True
    if resume is not None:
        runner.logger.info(f'There is no checkpoint in {runner.work_dir} to go on from: training starts afresh.')
    return (runner.cfg.load_from, False) if runner.cfg.get('load_from') else None
