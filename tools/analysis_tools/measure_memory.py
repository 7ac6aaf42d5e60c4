#!/usr/bin/env python
"""Measure one training step of a detector on random images.

python tools/analysis_tools/measure_memory.py CONFIG [--size 800 1333]

Prints the peak memory and the time, of the GPU where there is one, else of the process.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from coc_core.mm.requirements import require

require('mmdet')

import torch
from mmdet.testing import demo_mm_inputs

from benchmarks.measuring import process_memory
from coc_core.errors import UserError
from coc_core.mm.cli.options import add_config_options
from coc_core.mm.cli.start import run_tool
from coc_core.mm.configs import load_config
from coc_core.mm.models import build_model


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('config', help='the config file of a detector')
    parser.add_argument('--size', nargs=2, type=int, default=(800, 1333), metavar=('ROWS', 'COLUMNS'))
    parser.add_argument('--batch-size', type=int, default=1)
    add_config_options(parser)
    return parser.parse_args()


def measure(args: argparse.Namespace) -> None:
    """Build the detector with random weights and take one step."""
    cfg = load_config(args.config, args.cfg_options)
    if cfg.get('default_scope') != 'mmdet':
        raise UserError(f'{args.config} is no config of a detector.')
    device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    cfg.model.backbone.init_cfg = None
    model = build_model(cfg, args.config).to(device).train()
    data = demo_mm_inputs(args.batch_size, [[3, *args.size]] * args.batch_size, with_mask=True, device=str(device))
    before = process_memory(device)
    start = time.perf_counter()
    batch = model.data_preprocessor(data, True)
    loss, _ = model.parse_losses(model(**batch, mode='loss'))
    loss.backward()
    seconds, after = time.perf_counter() - start, process_memory(device)
    parameters = sum(p.numel() for p in model.parameters())
    print(f'{parameters:,} parameters, {args.batch_size} image(s) of {args.size[0]}x{args.size[1]} on {device.type}:')
    print(f'peak {after / 2**30:.2f} GiB, {before / 2**30:.2f} GiB of it before the step, {seconds:.1f} s')


if __name__ == '__main__':
    sys.exit(run_tool(measure, parse_args()))
