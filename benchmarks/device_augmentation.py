#!/usr/bin/env python
"""Measures what augmenting a batch costs the process that trains: `python benchmarks/device_augmentation.py`.

Runs the steps of `coc-tiny_8xb128_in1k-device.py` on a batch, the same RandAugment image by image, and that of
torchvision. Counts the calls of operators that do work, each at least one kernel on a GPU, and times them on tiny
images, which is what it takes to issue them, and on the recipe's.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from coc_core.mm.requirements import quiet_imports, require

require('mmpretrain')

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.transforms import v2

from benchmarks.machine import describe
from coc_core.mm.cli.options import add_debug_option
from coc_core.mm.cli.start import run_tool
from coc_core.mm.configs import load_config

with quiet_imports():
    from mmpretrain_plugin.device_augmentation.erasing import BatchErasing
    from mmpretrain_plugin.device_augmentation.rand_augment import BatchRandAugment

CONFIG = Path(__file__).resolve().parents[1] / 'configs' / 'classification' / 'coc-tiny_8xb128_in1k-device.py'
TINY, WHOLE = 8, 224


class CallCount(TorchDispatchMode):
    """Counts operators that make a tensor; what only looks at one differently is no kernel."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call the operator and count it."""
        self.calls += not (function.is_view or 'empty' in function.name())
        return function(*args, **(kwargs or {}))


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--device', default='cpu')
    parser.add_argument('--batch-size', type=int, default=128)
    parser.add_argument('--rounds', type=int, default=5)
    add_debug_option(parser)
    args = parser.parse_args()
    if min(args.batch_size, args.rounds) < 1:
        parser.error('numbers must be positive')
    return args


def measure(args: argparse.Namespace) -> None:
    """Run each way by turns, and print."""
    torch.set_num_threads(1)
    device = torch.device(args.device)
    ways = augmentations()
    images = {
        size: torch.randint(0, 256, (args.batch_size, 3, size, size), dtype=torch.uint8, device=device)
        for size in (TINY, WHOLE)
    }
    calls: dict[str, list[int]] = {name: [] for name in ways}
    seconds: dict[str, dict[int, list[float]]] = {name: {TINY: [], WHOLE: []} for name in ways}
    for number in range(args.rounds + 1):
        for name, augment in ways.items():
            torch.manual_seed(number)
            with CallCount() as count:
                augment(images[TINY])
            for size, batch in images.items():
                torch.manual_seed(number)
                taken = seconds_of(augment, batch)
                # The first round is slower, and is not counted.
                if number:
                    seconds[name][size].append(taken)
            calls[name].append(count.calls)
    result = {
        'machine': describe(device),
        'batch': args.batch_size,
        'ways': {
            name: {
                'operator calls for a batch': round(statistics.mean(calls[name])),
                f'ms for a batch of {TINY}x{TINY}': round(1e3 * statistics.median(seconds[name][TINY]), 2),
                f'ms for an image of {WHOLE}x{WHOLE}': round(
                    1e3 * statistics.median(seconds[name][WHOLE]) / args.batch_size, 3
                ),
            }
            for name in ways
        },
    }
    print(json.dumps(result, indent=1))


def augmentations() -> dict[str, Callable[[Tensor], Tensor]]:
    """Return the ways to augment a batch, by name."""
    steps = load_config(str(CONFIG)).data_preprocessor
    augment = BatchRandAugment(**steps.rand_augment)
    erase = BatchErasing(**steps.erasing)
    other = v2.RandAugment(num_ops=2, magnitude=9, interpolation=v2.InterpolationMode.BILINEAR)
    return {
        'RandAugment': augment,
        'erasing': erase,
        'RandAugment, image by image': lambda images: torch.cat([augment(image) for image in images.split(1)]),
        'RandAugment of torchvision, image by image': lambda images: torch.stack([other(image) for image in images]),
    }


def seconds_of(augment: Callable[[Tensor], Tensor], images: Tensor) -> float:
    """Return the processor time of a call; on a GPU the time until it is done."""
    if images.device.type == 'cpu':
        begin = time.process_time()
        augment(images)
        return time.process_time() - begin
    torch.cuda.synchronize(images.device)
    begin = time.perf_counter()
    augment(images)
    torch.cuda.synchronize(images.device)
    return time.perf_counter() - begin


if __name__ == '__main__':
    sys.exit(run_tool(measure, parse_args()))
