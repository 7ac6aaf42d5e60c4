#!/usr/bin/env python
"""Measures how many images per second one core prepares for ImageNet training: `python benchmarks/data_loading.py`.

Runs the training pipeline of a config on JPEG files that it makes itself, of ImageNet's usual size. Prints what each
transform takes, what other decoders and resizers, and shards of the same images, give, and how many worker processes a
GPU needs.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from coc_core.mm.requirements import require

require('mmpretrain', 'webdataset')

import cv2
import numpy as np
import torch
from mmengine.registry import init_default_scope
from mmpretrain.datasets import RandomResizedCrop
from mmpretrain.registry import DATASETS, TRANSFORMS
from PIL import Image, ImageDraw
from torchvision.transforms.v2 import functional as tv

from benchmarks.machine import cpu_model
from coc_core.mm.cli.options import add_debug_option
from coc_core.mm.cli.start import run_tool
from coc_core.mm.configs import load_config
from coc_core.mm.fault_tolerance.seeding import seed_sample
from coc_core.mm.requirements import quiet_imports

with quiet_imports():
    from mmpretrain_plugin.own_data import images_in
    from mmpretrain_plugin.shards.index import read_folder
    from mmpretrain_plugin.shards.writing import Recipe, plan_shards, write_shard

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ROOT / 'configs' / 'classification' / 'coc-tiny_8xb128_in1k.py'
CLASSES = ('first', 'second')


@TRANSFORMS.register_module()
class TensorResizedCrop(RandomResizedCrop):
    """mmpretrain's ``RandomResizedCrop``, resized by torchvision as a uint8 tensor and smoothed."""

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Crop and resize the image."""
        image = torch.from_numpy(results['img']).permute(2, 0, 1)
        place = self.rand_crop_params(results['img'])
        size = list(self.scale[::-1])
        done = tv.resized_crop(image, *place, size, tv.InterpolationMode(self.interpolation), antialias=True)
        results['img'] = np.ascontiguousarray(done.permute(1, 2, 0).numpy())
        results['img_shape'] = results['img'].shape
        return results


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--config', default=str(CONFIG), help='of a classifier (default: coc_tiny on ImageNet)')
    parser.add_argument('--images', type=int, default=64, help='JPEG files to make')
    parser.add_argument('--folder', type=Path, help='where to make them, once, and keep them (default: nowhere)')
    parser.add_argument('--size', nargs=2, type=int, default=(500, 375), metavar=('WIDTH', 'HEIGHT'))
    parser.add_argument('--rounds', type=int, default=5, help='passes over the files')
    parser.add_argument('--shorter-side', type=int, default=512, help='of the images in shards, at most')
    parser.add_argument(
        '--gpu-images-per-second', type=float, nargs='+', default=[500, 1000, 2000], help='training speeds of one GPU'
    )
    add_debug_option(parser)
    args = parser.parse_args()
    if min(args.images, args.rounds, *args.size) < 1 or min(args.gpu_images_per_second) <= 0:
        parser.error('numbers must be positive')
    return args


def measure(args: argparse.Namespace) -> None:
    """Make the files, measures and prints."""
    cfg = load_config(args.config)
    init_default_scope(cfg.default_scope)
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary)
        mean_bytes = make_images(folder, args.images, tuple(args.size))
        pipelines = dict(variants(cfg.train_dataloader.dataset.pipeline))
        datasets = {name: build(cfg, str(folder), pipeline) for name, pipeline in pipelines.items()}
        shards, contents = make_shards(folder, args.shorter_side)
        datasets['from shards'] = build(cfg, shards, pipelines['as configured'], type='ShardedImageNet')
        rates: dict[str, list[float]] = defaultdict(list)
        for number in range(args.rounds + 1):
            seconds = seconds_of_pass(datasets, number)
            # The first pass is slower, and is not counted.
            for name in seconds if number else ():
                rates[name].append(args.images / seconds[name])
        shares = transform_seconds(datasets['as configured'])
    medians = {name: statistics.median(values) for name, values in rates.items()}
    own = medians['as configured']
    result = {
        'cpu': cpu_model(),
        'files': f'{args.images} JPEGs of {args.size[0]}x{args.size[1]}, {mean_bytes / 1e3:.0f} kB on average',
        'shards': contents,
        'images per second and core': {
            name: {'median': round(medians[name], 1), 'min': round(min(v), 1), 'max': round(max(v), 1)}
            for name, v in rates.items()
        },
        'times as many as configured': {name: spread(v, rates['as configured']) for name, v in rates.items()},
        'milliseconds of each transform': {name: round(1e3 * seconds, 2) for name, seconds in shares.items()},
        'workers for one GPU that trains at that many images per second': {
            f'{need:g}': math.ceil(need / own) for need in args.gpu_images_per_second
        },
    }
    print(json.dumps(result, indent=1))


def spread(rates: list[float], others: list[float]) -> dict[str, float]:
    """Return median, min and max of the quotients of each round."""
    found = [rate / other for rate, other in zip(rates, others, strict=True)]
    return {'median': round(statistics.median(found), 2), 'min': round(min(found), 2), 'max': round(max(found), 2)}


def seconds_of_pass(datasets: dict[str, Any], number: int) -> dict[str, float]:
    """Load every image from each data set, by turns and with the same random numbers; return the seconds of each."""
    seconds: dict[str, float] = defaultdict(float)
    names = list(datasets)
    for index in range(min(map(len, datasets.values()))):
        first = index % len(names)
        for name in names[first:] + names[:first]:
            seed_sample(0, number, index)
            # Processor time: other programs do not slow it, and the files are in memory.
            begin = time.process_time()
            datasets[name][index]
            seconds[name] += time.process_time() - begin
    return seconds


def make_images(folder: Path, count: int, size: tuple[int, int]) -> float:
    """Write JPEGs of noise and shapes in the layout of ImageNet, where there are none; return their mean bytes."""
    rng = np.random.default_rng(0)
    sizes = []
    for index in range(count):
        pixels = np.zeros((size[1], size[0], 3))
        for scale, amplitude in ((4, 60), (16, 40), (64, 25)):
            coarse = rng.integers(0, 256, (scale, scale, 3), dtype=np.uint8)
            pixels += amplitude / 128 * (np.asarray(Image.fromarray(coarse).resize(size, Image.BICUBIC)) - 128.0)
        pixels += rng.normal(128, 23, pixels.shape)
        image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
        draw = ImageDraw.Draw(image)
        for _ in range(6):
            left, top = rng.integers(0, size[0]), rng.integers(0, size[1])
            corner = (int(left), int(top), int(left + size[0] // 4), int(top + size[1] // 4))
            draw.ellipse(corner, fill=tuple(int(v) for v in rng.integers(0, 256, 3)))
        path = folder / 'train' / CLASSES[index % len(CLASSES)] / f'{index}.JPEG'
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            image.save(path, quality=90)
        sizes.append(path.stat().st_size)
    return statistics.mean(sizes)


def make_shards(folder: Path, shorter_side: int, shard_size: int = 1000) -> tuple[str, str]:
    """Write the images into shards as the tool does; return the folder and a description."""
    images = images_in(folder / 'train', ('.jpeg',))
    recipe = Recipe(shorter_side, quality=95, shard_size=shard_size, seed=0)
    for path, entries in plan_shards(images, folder / 'shards' / 'train', recipe).items():
        write_shard(path, entries, recipe, skip=False)
    indexes = read_folder(folder / 'shards' / 'train')[1].values()
    mean_bytes = statistics.mean(size for index in indexes for size in index.sizes)
    resized = sum(index.resized for index in indexes)
    made = (
        f'a shorter side of at most {shorter_side}: {resized} images made smaller, {mean_bytes / 1e3:.0f} kB on average'
    )
    return str(folder / 'shards'), made


def variants(pipeline: list[Any]) -> Iterator[tuple[str, list[Any]]]:
    """Yield the pipeline as it is, and with other decoders and resizers."""
    yield 'as configured', pipeline
    changed: dict[str, dict[str, dict[str, Any] | None]] = {
        'decoded by pillow': {'LoadImageFromFile': {'imdecode_backend': 'pillow'}},
        'resized by torchvision': {'RandomResizedCrop': {'type': TensorResizedCrop.__name__}},
        'resized by cv2': {'RandomResizedCrop': {'backend': 'cv2'}},
        'without erasing': {'RandomErasing': None},
        'without RandAugment': {'RandAugment': None},
        'without both, as coc-tiny_8xb128_in1k-device.py': {'RandomErasing': None, 'RandAugment': None},
    }
    for name, transforms in changed.items():
        found = pipeline
        for transform, options in transforms.items():
            found = [entry for step in found for entry in change(step, transform, options)]
        yield name, found


def change(step: Any, name: str, options: dict[str, Any] | None) -> list[Any]:
    """Return a step, in which the transform of that name has other options or, without any, is left out."""
    step = copy.deepcopy(step)
    if step['type'] == 'RandomChoice':
        step['transforms'] = [[e for s in branch for e in change(s, name, options)] for branch in step['transforms']]
        return [step] if any(step['transforms']) else []
    if step['type'] != name:
        return [step]
    return [] if options is None else [dict(step, **options)]


def build(cfg: Any, folder: str, pipeline: list[Any], **changed: Any) -> Any:
    """Build the config's data set over the files, with other entries where they are given."""
    found = cfg.train_dataloader.dataset
    options = dict(found, data_root=folder, pipeline=pipeline, metainfo=dict(classes=CLASSES), **changed)
    return DATASETS.build(options)


def transform_seconds(dataset: Any) -> dict[str, float]:
    """Return the mean seconds of each step of the pipeline for one image."""
    total: dict[str, float] = defaultdict(float)
    for index in range(len(dataset)):
        sample = dataset.get_data_info(index)
        for transform in dataset.pipeline.transforms:
            begin = time.process_time()
            sample = transform(sample)
            total[name_of(transform)] += time.process_time() - begin
    return {name: seconds / len(dataset) for name, seconds in total.items()}


def name_of(transform: Any) -> str:
    """Name a transform, or what a random choice chooses among."""
    if type(transform).__name__ == 'RandomChoice':
        return type(transform.transforms[0].transforms[0]).__name__
    return type(transform).__name__


if __name__ == '__main__':
    sys.exit(run_tool(measure, parse_args()))
