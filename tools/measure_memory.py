#!/usr/bin/env python
"""Measures one training step of a detector on random images: `python tools/measure_memory.py CONFIG [--size 800 1333]`.

Prints the peak memory and the time, of the GPU where there is one, else of the process.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from coc_core.mm.entry import start


def parse_args() -> argparse.Namespace:
    """Reads the command line."""
    from coc_core.mm.launch import add_config_options

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('config', help='the config file of a detector')
    parser.add_argument('--size', nargs=2, type=int, default=(800, 1333), metavar=('ROWS', 'COLUMNS'))
    parser.add_argument('--batch-size', type=int, default=1)
    add_config_options(parser)
    return parser.parse_args()


def measure(args: argparse.Namespace) -> None:
    """Builds the detector with random weights and takes one step."""
    import torch
    from mmdet.registry import MODELS
    from mmdet.testing import demo_mm_inputs
    from mmengine.registry import init_default_scope

    from coc_core.mm.errors import LaunchError
    from coc_core.mm.launch import load_config, replace_sync_batch_norm

    cfg = load_config(args.config, args.cfg_options)
    if cfg.get('default_scope') != 'mmdet':
        raise LaunchError(f'{args.config} is no config of a detector.')
    init_default_scope('mmdet')
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    if device == 'cpu':
        replace_sync_batch_norm(cfg.model)
    cfg.model.backbone.init_cfg = None
    model = MODELS.build(cfg.model).to(device).train()
    data = demo_mm_inputs(args.batch_size, [[3, *args.size]] * args.batch_size, with_mask=True, device=device)
    before = peak_memory(device)
    start = time.perf_counter()
    batch = model.data_preprocessor(data, True)
    loss, _ = model.parse_losses(model(**batch, mode='loss'))
    loss.backward()
    seconds, after = time.perf_counter() - start, peak_memory(device)
    parameters = sum(p.numel() for p in model.parameters())
    print(f'{parameters:,} parameters, {args.batch_size} image(s) of {args.size[0]}x{args.size[1]} on {device}:')
    print(f'peak {after / 2**30:.2f} GiB, {before / 2**30:.2f} GiB of it before the step, {seconds:.1f} s')


def peak_memory(device: str) -> int:
    """Returns the most bytes held so far."""
    import torch

    if device == 'cuda':
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == 'darwin' else 1024)


if __name__ == '__main__':
    sys.exit(start(measure, parse_args, needs='mmdet'))
