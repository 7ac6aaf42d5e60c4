"""The options that only training has."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.runner import Runner

from coc_core.checkpoints.reading import check_file
from coc_core.errors import UserError
from coc_core.mm.cli.resuming import resume_from


def apply_options(cfg: Config, args: argparse.Namespace) -> None:
    """Write `--amp`, `--no-validate` and `--auto-scale-lr` into a config.

    Raises:
        UserError: The config cannot be trained, or an option does not fit it or this machine.
    """
    for name in ('train_dataloader', 'train_cfg', 'optim_wrapper'):
        if not cfg.get(name):
            raise UserError(f'{args.config} cannot be trained: it has no {name}.')
    if args.no_validate:
        cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    if args.amp or args.amp_dtype:
        if not torch.cuda.is_available():
            raise UserError("--amp needs a GPU: mmengine's mixed precision does not run on the CPU.")
        cfg.optim_wrapper.type = 'AmpOptimWrapper'
        cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')
        cfg.optim_wrapper.dtype = args.amp_dtype or cfg.optim_wrapper.get('dtype', 'float16')
    if args.auto_scale_lr:
        if not cfg.get('auto_scale_lr', {}).get('base_batch_size'):
            raise UserError(f'--auto-scale-lr needs auto_scale_lr.base_batch_size, which {args.config} does not set.')
        cfg.auto_scale_lr.enable = True


def apply_resume(cfg: Config, args: argparse.Namespace) -> Path | None:
    """Write into a config what training goes on or starts from.

    Returns:
        The checkpoint to go on from, or None for a fresh start.

    Raises:
        UserError: A checkpoint does not exist.
    """
    # A config or --cfg-options may ask for it just as well as the command line.
    asked = args.resume or (cfg.get('load_from') or 'auto' if cfg.get('resume') else None)
    checkpoint = resume_from(asked, cfg.work_dir) if asked else None
    cfg.resume = checkpoint is not None
    if checkpoint is not None:
        cfg.load_from = str(checkpoint)
    elif isinstance(cfg.get('load_from'), str) and '://' not in cfg.load_from:
        check_file(Path(cfg.load_from).expanduser())
    return checkpoint


def starting_point(runner: Runner, resume: str | None, checkpoint: Path | None) -> tuple[str, bool] | None:
    """Say what training goes on from; return the checkpoint that is loaded, if any, and whether all of it must fit.

    One to go on from must be this model's. One to start from may have a head for other classes, for example: what does
    not fit starts fresh, and the log names it.
    """
    if checkpoint is not None:
        runner.logger.info(f'Training goes on from {checkpoint}.')
        return str(checkpoint), True
    if resume is not None:
        runner.logger.info(f'There is no checkpoint in {runner.work_dir} to go on from: training starts afresh.')
    return (runner.cfg.load_from, False) if runner.cfg.get('load_from') else None
