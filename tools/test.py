#!/usr/bin/env python
"""Test a checkpoint with any config of this project: `python tools/test.py CONFIG CHECKPOINT [--out FILE] ...`."""

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

from coc_core.mm.cli import running, testing
from coc_core.mm.cli.options import add_common_arguments
from coc_core.mm.cli.start import run_tool
from coc_core.mm.configs import load_config
from coc_core.mm.hooks.checkpoint import LoadCheckpointHook
from coc_core.mm.hooks.progress import ProgressBarHook


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description='Test a model.')
    parser.add_argument('config', help='the config file')
    parser.add_argument('checkpoint', help='the checkpoint file')
    parser.add_argument('--out', help='save the predictions: a .pkl file; for segmentation a folder of label maps')
    parser.add_argument(
        '--out-item',
        choices=['metrics', 'pred'],
        help='whether --out saves the metrics (.json, .yaml, .pkl) or predictions (the default)',
    )
    parser.add_argument('--report', metavar='DIR', help='write what goes wrong into DIR/report.html')
    parser.add_argument('--show', action='store_true', help='show predictions in a window')
    parser.add_argument('--show-dir', help='save pictures of the predictions in this folder')
    parser.add_argument('--interval', type=int, default=1, help='classification: picture every this many samples')
    parser.add_argument('--wait-time', type=float, default=2, help='seconds that a window stays (default: 2)')
    parser.add_argument('--tta', action='store_true', help='average over augmented copies of each image')
    add_common_arguments(parser)
    return parser.parse_args()


def test(args: argparse.Namespace) -> None:
    """Build what the config describes, load the checkpoint strictly and evaluate it."""
    cfg = load_config(args.config, args.cfg_options)
    testing.apply_options(cfg, args)
    running.prepare(cfg, args, ['test'])
    runner = running.build_runner(cfg, args.config)
    runner.register_hook(ProgressBarHook())
    running.build_loops(runner, ['test'])
    classes = getattr(runner.test_loop.dataloader.dataset, 'metainfo', {}).get('classes')
    runner.register_hook(LoadCheckpointHook(args.checkpoint, classes=classes))
    with during('testing'):
        metrics = runner.test()
    testing.save_metrics(metrics, args)
    testing.compare_with_zoo(runner, metrics, args.config)


if __name__ == '__main__':
    sys.exit(run_tool(test, parse_args()))
