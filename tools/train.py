#!/usr/bin/env python
"""Trains any config of this project: `python tools/train.py CONFIG [--work-dir DIR] [--resume] ...`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from coc_core.mm.entry import start


def parse_args() -> argparse.Namespace:
    """Reads the command line."""
    from coc_core.mm.launch import add_common_arguments

    parser = argparse.ArgumentParser(description='Train a model.')
    parser.add_argument('config', help='the config file')
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='PATH',
        help="go on from a checkpoint; without PATH or with 'auto': the work folder's last one",
    )
    parser.add_argument('--amp', action='store_true', help='train in mixed precision')
    parser.add_argument(
        '--amp-dtype', choices=['float16', 'bfloat16'], help="mixed precision's type (default: float16); implies --amp"
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
    """Builds what the config describes and trains it."""
    from coc_core.mm import launch, training

    cfg = launch.load_config(args.config, args.cfg_options)
    training.apply(cfg, args)
    launch.prepare(cfg, args, ['train', 'val'])
    checkpoint = training.apply_resume(cfg, args)
    runner = launch.build_runner(cfg, args.debug)
    launch.build_loops(runner, ['train', 'val'])
    training.announce_start(runner, args.resume, checkpoint)
    runner.train()


if __name__ == '__main__':
    sys.exit(start(train, parse_args))
