#!/usr/bin/env python
"""Compares the pixels that resizers make of the same crops: `python benchmarks/resizing.py FOLDER`.

Runs the pipeline's crop and resize by Pillow and by torchvision, and the whole pipeline. The first run in a folder
makes the images in it and leaves its pixels there; a later one, with another Pillow, takes them and compares.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from coc_core.mm.requirements import require

require('mmpretrain', 'webdataset')

import numpy as np
import PIL
from mmengine.registry import init_default_scope
from numpy.typing import NDArray
from PIL import features

from benchmarks.data_loading import CONFIG, TensorResizedCrop, build, change, make_images
from coc_core.mm.cli.options import add_debug_option
from coc_core.mm.cli.start import run_tool
from coc_core.mm.configs import load_config
from coc_core.mm.fault_tolerance.seeding import seed_sample


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('folder', type=Path, help='of the images and pixels.npz; made where it is not there')
    parser.add_argument('--images', type=int, default=32, help='JPEG files to make')
    add_debug_option(parser)
    return parser.parse_args()


def measure(args: argparse.Namespace) -> None:
    """Make the pixels, compare and print."""
    make_images(args.folder, args.images, (500, 375))
    pixels = make_pixels(str(args.folder))
    found: dict[str, Any] = {
        'pillow': f'{PIL.__version__}, libjpeg-turbo {features.version("libjpeg_turbo")}',
        'torchvision to Pillow': {
            kind: difference(pixels[f'torchvision {kind}'], pixels[f'Pillow {kind}'])
            for kind in ('bilinear', 'bicubic')
        },
    }
    stored = args.folder / 'pixels.npz'
    if stored.exists():
        with np.load(stored) as others:
            found['to the first run'] = {name: difference(own, others[name]) for name, own in pixels.items()}
    else:
        np.savez(stored, **pixels)
    print(json.dumps(found, indent=1))


def make_pixels(folder: str) -> dict[str, NDArray[np.uint8]]:
    """Return what each resizer, and the pipeline, make of the images."""
    cfg = load_config(str(CONFIG))
    init_default_scope(cfg.default_scope)
    pipeline = cfg.train_dataloader.dataset.pipeline
    load, pack = pipeline[0], pipeline[-1]
    crops = {
        f'{library} {kind}': dict(type=name, scale=224, backend='pillow', interpolation=kind)
        for library, name in (('Pillow', 'RandomResizedCrop'), ('torchvision', TensorResizedCrop.__name__))
        for kind in ('bilinear', 'bicubic')
    }
    pipelines = {name: [load, crop, pack] for name, crop in crops.items()}
    pipelines['the pipeline'] = pipeline
    crop = dict(type='CenterCrop', crop_size=224)
    rest = [step for old in pipeline[1:] for step in change(old, 'RandomResizedCrop', None)]
    pipelines['the pipeline with another crop'] = [load, crop, *rest]
    pipelines['decoded by Pillow'] = [dict(load, imdecode_backend='pillow'), crop, pack]
    pixels = {}
    for name, steps in pipelines.items():
        dataset = build(cfg, folder, steps)
        images = []
        for index in range(len(dataset)):
            seed_sample(0, 0, index)
            images.append(dataset[index]['inputs'].numpy())
        pixels[name] = np.stack(images)
    return pixels


def difference(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> dict[str, float]:
    """Return the largest and mean difference of values, and the share of values that differ."""
    apart = np.abs(one.astype(int) - other)
    return {
        'max': int(apart.max()),
        'mean': round(float(apart.mean()), 4),
        'share': round(float((apart > 0).mean()), 4),
    }


if __name__ == '__main__':
    sys.exit(run_tool(measure, parse_args()))
