#!/usr/bin/env python
"""Measures how fast a disk gives the images of an epoch, as files and in shards: `benchmarks/shard_reading.py FOLDER`.

Makes JPEG files and shards of them in the folder, drops both from this machine's memory, and reads each image once: the
files in a random order, the shards in that of `ShardSampler`, in one process that does nothing else. What a server of a
network disk keeps in its own memory is not dropped: give more images than that holds.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from coc_core.mm.requirements import quiet_imports, require

require('mmpretrain', 'webdataset')

from mmengine import fileio

from benchmarks.data_loading import CLASSES, make_images, make_shards
from coc_core.errors import UserError
from coc_core.mm.cli.options import add_debug_option
from coc_core.mm.cli.start import run_tool

with quiet_imports():
    from mmpretrain_plugin.shards import ShardedImageNet, ShardSampler

# Drawing one takes longer than writing it many times.
DRAWN = 40


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('folder', type=Path, help='a folder on the disk; what is made in it is removed')
    parser.add_argument('--images', type=int, default=3000, help='of 92 kB on average')
    parser.add_argument('--shard-size', type=int, default=100, help='images in a shard')
    parser.add_argument('--window', type=int, default=24, help='shards that are read at a time')
    parser.add_argument('--rounds', type=int, default=5, help='passes over the images')
    add_debug_option(parser)
    args = parser.parse_args()
    if min(args.images, args.shard_size, args.window, args.rounds) < 1:
        parser.error('numbers must be positive')
    return args


def measure(args: argparse.Namespace) -> None:
    """Make files and shards, read both by turns, and print.

    Raises:
        UserError: There is no such folder, or this system cannot drop files from memory.
    """
    if not args.folder.is_dir():
        raise UserError(f'{args.folder} is no folder: name one on the disk that is to be measured.')
    if not hasattr(os, 'posix_fadvise'):
        raise UserError('This system cannot drop files from its memory: measure on Linux.')
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        files = make_files(Path(folder), args.images)
        shards, _ = make_shards(Path(folder), 0, args.shard_size)
        dataset = ShardedImageNet(data_root=shards, split='train', metainfo=dict(classes=CLASSES))
        rates: dict[str, list[float]] = {'files': [], 'shards': []}
        for number in range(args.rounds):
            random.Random(number).shuffle(files)
            sampler = ShardSampler(dataset, seed=0, window=args.window)
            sampler.set_epoch(number)
            rates['files'].append(rate(folder, files))
            rates['shards'].append(rate(folder, [dataset.get_data_info(i)['img_path'] for i in sampler]))
    result: dict[str, Any] = {
        name: {'median': round(statistics.median(v)), 'min': round(min(v)), 'max': round(max(v))}
        for name, v in rates.items()
    }
    print(json.dumps({'images': args.images, 'images per second': result}, indent=1))


def make_files(folder: Path, count: int) -> list[str]:
    """Write images in the layout of ImageNet, few of them drawn and each of those several times; return the paths."""
    make_images(folder, min(DRAWN, count), (500, 375))
    drawn = sorted((folder / 'train').rglob('*.JPEG'))
    for number in range(len(drawn), count):
        source = drawn[number % len(drawn)]
        shutil.copy(source, source.with_stem(f'{source.stem}_{number}'))
    return [str(path) for path in (folder / 'train').rglob('*.JPEG')]


def rate(folder: str, addresses: Sequence[str]) -> float:
    """Read images from the disk; return how many a second."""
    os.sync()
    for path in Path(folder).rglob('*.*'):
        with path.open('rb') as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    begin = time.perf_counter()
    for address in addresses:
        fileio.get(address)
    return len(addresses) / (time.perf_counter() - begin)


if __name__ == '__main__':
    sys.exit(run_tool(measure, parse_args()))
