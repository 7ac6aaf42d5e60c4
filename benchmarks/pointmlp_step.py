#!/usr/bin/env python
"""Compare one training step of the point-cloud models with the reference one: `python benchmarks/pointmlp_step.py`.

Each runs in a process of its own, in turns; the ratio of the medians is printed with the peak memory of both.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import platform
import statistics
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from coc_core.mm.requirements import require

require('mmengine')

import torch

import pointcloud
from benchmarks.measuring import process_memory
from pointcloud.reference import pointmlp_reference

KINDS = ('reference', 'fast')


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--arch', default='pointmlp_coc')
    parser.add_argument('--batch-size', type=int, default=8)
    parser.add_argument('--points', type=int, default=1024)
    parser.add_argument(
        '--steps', type=int, default=3, help='steps that are timed in each process, after one that is not'
    )
    parser.add_argument('--rounds', type=int, default=3)
    return parser.parse_args()


def measure(kind: str, args: argparse.Namespace) -> tuple[list[float], int]:
    """Train for a few steps; return seconds per step and peak memory in bytes."""
    torch.manual_seed(0)
    model = pointcloud.create_model(args.arch).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    points = torch.randn(args.batch_size, args.points, 3)
    labels = torch.arange(args.batch_size) % 15
    trunk = model.backbone if kind == 'fast' else lambda x: pointmlp_reference(model.backbone, x)
    seconds = []
    for _ in range(1 + args.steps):
        start = time.perf_counter()
        optimizer.zero_grad()
        model.head.loss(trunk(points), labels)['loss'].backward()
        optimizer.step()
        seconds.append(time.perf_counter() - start)
    return seconds[1:], process_memory(torch.device('cpu'))


def main() -> None:
    """Command line."""
    args = parse_args()
    context = multiprocessing.get_context('spawn')
    seconds: dict[str, list[float]] = {kind: [] for kind in KINDS}
    memory = dict.fromkeys(KINDS, 0)
    for _ in range(args.rounds):
        for kind in KINDS:
            with ProcessPoolExecutor(1, mp_context=context) as process:
                times, peak = process.submit(measure, kind, args).result()
            seconds[kind] += times
            memory[kind] = max(memory[kind], peak)
    medians = {kind: statistics.median(times) for kind, times in seconds.items()}
    print(
        json.dumps(
            {
                'machine': f'{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}',
                **vars(args),
                'seconds per step': {kind: round(value, 3) for kind, value in medians.items()},
                'peak memory in GiB': {kind: round(value / 2**30, 2) for kind, value in memory.items()},
                'speed ratio': round(medians['reference'] / medians['fast'], 2),
                'memory ratio': round(memory['fast'] / memory['reference'], 2),
            },
            indent=1,
        )
    )


if __name__ == '__main__':
    main()
