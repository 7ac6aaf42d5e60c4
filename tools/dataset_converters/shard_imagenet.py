#!/usr/bin/env python
"""Write the training images of ImageNet into a few large files, for disks that are slow to open many small ones.

python tools/dataset_converters/shard_imagenet.py --data data/imagenet --out data/imagenet-shards

Images whose shorter side has more than 512 pixels are made smaller: another recipe than the published one. All others
keep their bytes. A run that was cut goes on where it was. Exit code 0: all images are there, or were left out by
--skip-unreadable; 2: some cannot be read, or the command is wrong.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from coc_core.mm.requirements import quiet_imports, require

require('mmpretrain', 'webdataset')

from mmengine.config import Config
from rich.console import Console
from rich.progress import track

from coc_core.errors import UserError
from coc_core.files import megabytes, project_folder, write_bytes
from coc_core.mm.cli.options import add_debug_option
from coc_core.mm.cli.start import run_tool

with quiet_imports():
    from mmpretrain_plugin.own_data import images_in
    from mmpretrain_plugin.shards.index import CLASSES, read_folder
    from mmpretrain_plugin.shards.sampler import WINDOW
    from mmpretrain_plugin.shards.writing import Entry, Recipe, is_complete, plan_shards, write_shard

BASE = 'configs/_base_/coc_8xb128_in1k.py'
UNREADABLE = 'unreadable.txt'
LARGEST_SHARD = 1000


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--data', type=Path, default=Path('data/imagenet'), help='the folder with train/CLASS/IMAGE')
    parser.add_argument('--out', type=Path, default=Path('data/imagenet-shards'), help='where train/ with shards goes')
    parser.add_argument(
        '--shorter-side', type=int, default=512, help='pixels that the shorter side of an image has at most; 0: any'
    )
    parser.add_argument('--quality', type=int, default=95, help='of the JPEGs of images that are made smaller')
    parser.add_argument(
        '--shard-size', type=int, help=f'images in a shard (default: {LARGEST_SHARD}, or fewer to have {WINDOW} shards)'
    )
    parser.add_argument('--seed', type=int, default=0, help='of the order of images, which is shuffled once for all')
    parser.add_argument('--processes', type=int, default=os.cpu_count(), help='default: one a core')
    parser.add_argument('--skip-unreadable', action='store_true', help='leave out images that cannot be read')
    add_debug_option(parser)
    args = parser.parse_args()
    if not 1 <= args.quality <= 100:
        parser.error('--quality must be from 1 to 100')
    counts = [args.processes, 1 if args.shard_size is None else args.shard_size]
    if min(args.shorter_side, args.seed) < 0 or min(counts) < 1:
        parser.error('numbers must be positive; --shorter-side and --seed may be 0')
    return args


def convert(args: argparse.Namespace) -> None:
    """Write the shards that are missing, and say what there is.

    Raises:
        UserError: Images cannot be read and are not to be left out, or the data or the folder does not fit.
    """
    extensions = Config.fromfile(str(project_folder() / BASE), import_custom_modules=False).extensions
    images = images_in(args.data / 'train', extensions)
    fitting = min(LARGEST_SHARD, -(-len(images.names) // WINDOW))
    recipe = Recipe(args.shorter_side, args.quality, args.shard_size or fitting, args.seed)
    folder = args.out / 'train'
    shards = plan_shards(images, folder, recipe)
    missing = {path: part for path, part in shards.items() if not is_complete(path, skip=args.skip_unreadable)}
    if len(missing) < len(shards):
        print(f'{len(shards) - len(missing)} of {len(shards)} shards are complete.', flush=True)
    unreadable = list(written(missing, recipe, args))
    if args.skip_unreadable:
        unreadable = [sentence for index in read_folder(folder)[1].values() for sentence in index.left_out]
    listing = folder / UNREADABLE
    listing.unlink(missing_ok=True)
    if unreadable:
        write_bytes(listing, ''.join(f'{sentence}\n' for sentence in unreadable).encode())
    if unreadable and not args.skip_unreadable:
        raise UserError(
            f'{len(unreadable)} of {len(images.names)} images cannot be read ({listing} lists them), and their shards '
            'were not written: replace these files and run this again, or leave them out with --skip-unreadable.'
        )
    print(summary(folder, len(unreadable)))


def written(missing: Mapping[Path, list[Entry]], recipe: Recipe, args: argparse.Namespace) -> Iterator[str]:
    """Write shards, with a progress bar on a terminal; yield and print a sentence about each unreadable image."""
    console = Console(stderr=True)
    write = partial(write_shard, recipe=recipe, skip=args.skip_unreadable)
    with ProcessPoolExecutor(args.processes) as pool:
        results = pool.map(write, missing, missing.values())
        bar = track(results, 'shards', total=len(missing), console=console, disable=not console.is_terminal)
        for sentences in bar:
            for sentence in sentences:
                print(sentence, file=sys.stderr, flush=True)
                yield sentence


def summary(folder: Path, left_out: int) -> str:
    """Say what a folder of shards holds.

    Args:
        folder: The folder.
        left_out: How many images could not be read.
    """
    classes, shards = read_folder(folder)
    images = sum(len(index) for index in shards.values())
    resized = sum(index.resized for index in shards.values())
    size = megabytes(sum(index.size for index in shards.values()))
    without = f' {left_out} could not be read and were left out ({folder / UNREADABLE}).' if left_out else ''
    return (
        f'{folder}: {images} images of {len(classes)} classes ({CLASSES}) in {len(shards)} shards, {size}. '
        f'{resized} of them ({100 * resized / images:.1f} %) were made smaller.{without}'
    )


if __name__ == '__main__':
    sys.exit(run_tool(convert, parse_args()))
