#!/usr/bin/env python
"""Train any config of this project: `python tools/train.py CONFIG [--work-dir DIR] [--resume] ...`."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
# torch reads it when it is imported; why: tools/dist_common.sh.
if 'OMP_WAIT_POLICY' not in os.environ:
    os.environ.setdefault('GOMP_SPINCOUNT', '3000')

from coc_core.errors import during
from coc_core.mm.requirements import require

require('mmengine')

from mmengine.dist import is_main_process

from coc_core.mm.cli import running, training
from coc_core.mm.cli.console import announce
from coc_core.mm.cli.options import add_common_arguments
from coc_core.mm.cli.rehearsal import build_schedules, check_smallest_batch
from coc_core.mm.cli.start import run_tool
from coc_core.mm.configs import load_config
from coc_core.mm.fault_tolerance.faults import explained
from coc_core.mm.fault_tolerance.schedules import FollowConfigHook
from coc_core.mm.fault_tolerance.states import remove_earlier
from coc_core.mm.fault_tolerance.stopping import StopHook
from coc_core.mm.hooks.checkpoint import LoadCheckpointHook
from coc_core.mm.hooks.progress import ProgressBarHook
from coc_core.mm.pretrained import start_as_given


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description='Train a model.')
    parser.add_argument('config', help='the config file')
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='PATH',
        help="go on from a checkpoint; without PATH or with 'auto': the work folder's last one",
    )
    parser.add_argument(
        '--overwrite', action='store_true', help='start anew in a work folder that holds a training already'
    )
    parser.add_argument('--amp', action='store_true', help='train in mixed precision')
    parser.add_argument(
        '--amp-dtype',
        choices=['float16', 'bfloat16'],
        help="mixed precision's type (default: float16; on a CPU bfloat16 alone); implies --amp",
    )
    parser.add_argument('--no-validate', action='store_true', help='do not evaluate during training')
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help="scale the learning rate from the config's batch size to the actual one",
    )
    add_common_arguments(parser)
    return parser.parse_args()


def train(args: argparse.Namespace) -> None:
    """Build what the config describes and train it."""
    cfg = load_config(args.config, args.cfg_options)
    training.apply_options(cfg, args)
    running.prepare(cfg, args, ['train', 'val'])
    state = training.apply_start(cfg, args)
    runner = running.build_runner(cfg, args.config)
    start_as_given(runner)
    runner.register_hook(ProgressBarHook())
    if not any(isinstance(hook, StopHook) for hook in runner.hooks):
        runner.register_hook(StopHook())
    running.build_loops(runner, ['train', 'val'])
    build_schedules(runner)
    check_smallest_batch(runner)
    loaded = training.starting_point(runner, args.resume, state)
    if loaded is not None:
        path, strict = loaded
        classes = getattr(runner.train_dataloader.dataset, 'metainfo', {}).get('classes')
        runner.register_hook(LoadCheckpointHook(path, strict=strict, classes=classes))
    if state is not None:
        runner.register_hook(FollowConfigHook())
    # A launcher that starts a training again repeats its options, and what is there then is this training's.
    if args.overwrite and state is None and is_main_process():
        remove_earlier(runner.work_dir)
    announce(runner, args.config)
    with during('training'), explained():
        runner.train()


if __name__ == '__main__':
    sys.exit(run_tool(train, parse_args()))
