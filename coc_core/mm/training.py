"""The options that only training has."""

from __future__ import annotations

import argparse
from pathlib import Path

from mmengine.config import Config
from mmengine.runner import Runner

from coc_core.mm.checkpoint_hook import CheckpointFitHook
from coc_core.mm.config_checks import check_cuda_amp
from coc_core.mm.errors import LaunchError
from coc_core.mm.resuming import check_checkpoint_file, resume_from


def apply(cfg: Config, args: argparse.Namespace) -> None:
    """Writes `--amp`, `--no-validate` and `--auto-scale-lr` into a config.

    Raises:
        LaunchError: The config cannot be trained, or an option does not fit it or this machine.
    """
    for name in ('train_dataloader', 'train_cfg', 'optim_wrapper'):
        if not cfg.get(name):
            raise LaunchError(f'{args.config} cannot be trained: it has no {name}.')
    if args.no_validate:
        cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    if args.amp or args.amp_dtype:
        check_cuda_amp()
        cfg.optim_wrapper.type = 'AmpOptimWrapper'
        cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')
        cfg.optim_wrapper.dtype = args.amp_dtype or cfg.optim_wrapper.get('dtype', 'float16')
    if args.auto_scale_lr:
        if not cfg.get('auto_scale_lr', {}).get('base_batch_size'):
            raise LaunchError(f'--auto-scale-lr needs auto_scale_lr.base_batch_size, which {args.config} does not set.')
        cfg.auto_scale_lr.enable = True


def apply_resume(cfg: Config, args: argparse.Namespace) -> Path | None:
    """Writes into a config what training goes on or starts from.

    Returns:
        The checkpoint to go on from, or None for a fresh start.

    Raises:
        LaunchError: A checkpoint does not exist.
    """
    # A config or --cfg-options may ask for it just as well as the command line.
    wish = args.resume or (cfg.get('load_from') or 'auto' if cfg.get('resume') else None)
    checkpoint = resume_from(wish, cfg.work_dir) if wish else None
    cfg.resume = checkpoint is not None
    if checkpoint is not None:
        cfg.load_from = str(checkpoint)
    elif isinstance(cfg.get('load_from'), str) and '://' not in cfg.load_from:
        check_checkpoint_file(Path(cfg.load_from).expanduser())
    return checkpoint


def announce_start(runner: Runner, resume: str | None, checkpoint: Path | None) -> None:
    """Says what training goes on from; another model's checkpoint is refused, or fitted where it is but a start."""
    if checkpoint is not None:
        runner.register_hook(CheckpointFitHook(str(checkpoint)))
        runner.logger.info(f'Training goes on from {checkpoint}.')
        return
    if resume is not None:
        runner.logger.info(f'There is no checkpoint in {runner.work_dir} to go on from: training starts afresh.')
    if runner.cfg.get('load_from'):
        # Heads for other classes start afresh, for example; the hook says which.
        runner.register_hook(CheckpointFitHook(runner.cfg.load_from, strict=False))
