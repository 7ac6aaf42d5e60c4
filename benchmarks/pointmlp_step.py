#!/usr/bin/env python
"""Compares one training step of the point-cloud models with the literal one: `python benchmarks/pointmlp_step.py`.

Each runs in a process of its own, in turns; the ratio of the medians is printed with the peak memory of both.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import platform
import resource
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

KINDS = ('literal', 'fast')


def parse_args() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--arch', default='pointmlp_coc')
    parser.add_argument('--batch-size', type=int, default=8)
    parser.add_argument('--points', type=int, default=1024)
    parser.add_argument(
        '--steps', type=int, default=3, help='steps that are timed in each process, after one that is not'
    )
    parser.add_argument('--rounds', type=int, default=3)
    return parser.parse_args()


def measure(kind: str, args: argparse.Namespace, results: multiprocessing.Queue) -> None:
    """Trains for a few steps; puts seconds per step and peak memory in bytes into ``results``."""
    import torch

    import pointcloud
    from pointcloud.reference import pointmlp_reference

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
    # Kilobytes on Linux.
    results.put((seconds[1:], 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss))


def main() -> None:
    """Command line."""
    args = parse_args()
    context = multiprocessing.get_context('spawn')
    seconds: dict[str, list[float]] = {kind: [] for kind in KINDS}
    memory = dict.fromkeys(KINDS, 0)
    for _ in range(args.rounds):
        for kind in KINDS:
            results = context.Queue()
            process = context.Process(target=measure, args=(kind, args, results))
            process.start()
            times, peak = results.get()
            process.join()
            seconds[kind] += times
            memory[kind] = max(memory[kind], peak)
    import torch

    medians = {kind: statistics.median(times) for kind, times in seconds.items()}
    print(
        json.dumps(
            {
                'machine': f'{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}',
                **vars(args),
                'seconds per step': {kind: round(value, 3) for kind, value in medians.items()},
                'peak memory in GiB': {kind: round(value / 2**30, 2) for kind, value in memory.items()},
                'speed ratio': round(medians['literal'] / medians['fast'], 2),
                'memory ratio': round(memory['fast'] / memory['literal'], 2),
            },
            indent=1,
        )
    )


if __name__ == '__main__':
    main()
