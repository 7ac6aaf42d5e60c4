#!/usr/bin/env python3
"""Write scikit-learn's 1,797 scanned digits, or photographs, in the layouts of ImageNet, COCO, ADE20K and ScanObjectNN.

python tools/dataset_converters/make_digits_data.py                       # all four, into data/digits
python tools/dataset_converters/make_digits_data.py --layout imagenet
python tools/dataset_converters/make_digits_data.py --source stamps       # COCO and ADE20K, into data/stamps

`--source stamps` pastes photographs of things, from Debian's package tuxpaint-stamps-default, instead of digits.
A stratified fifth of the scans, or of the cut-outs, is held back for validation in every layout. The same arguments
give the same bytes.
Each layout is written aside and moved into place when it is complete.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

try:
    import h5py
    import numpy as np
    from PIL import Image
    from pycocotools import mask as rle
    from rich.progress import track as bar
    from scenes import SCENE_SIZE, Cutout, DataError, Scene, Source, draw_scene
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split
    from stamps import FOLDER, stamps_source
except ModuleNotFoundError as error:
    sys.exit(f'make_digits_data: {error.name} is not installed: run `make setup`, or pip install .[digits].')

CLASSES = tuple('0123456789')
GENERATOR = 1
IMAGE_SIZE = 64
POINTS = 2048
STROKE = 0.4

Item = TypeVar('Item')


@dataclass(frozen=True)
class Digits:
    """Scans of one split: images [N, 8, 8] in [0, 1] and labels [N]."""

    scans: np.ndarray
    labels: np.ndarray

    def background(self, rng: np.random.Generator) -> np.ndarray:
        """Return soft dark colors, float64 [SCENE_SIZE, SCENE_SIZE, 3]."""
        texture = Image.fromarray(rng.integers(0, 110, (6, 6, 3), dtype=np.uint8)).resize(
            (SCENE_SIZE, SCENE_SIZE), Image.Resampling.BICUBIC
        )
        return np.asarray(texture, dtype=np.float64) + rng.normal(0, 4, (SCENE_SIZE, SCENE_SIZE, 3))

    def cutout(self, rng: np.random.Generator) -> Cutout:
        """Return a digit of random size and turn, which gets its color when it is pasted."""
        index, size = rng.integers(len(self.labels)), int(rng.integers(48, 121))
        ink = enlarge(self.scans[index], size, rng.uniform(-20, 20))
        return Cutout(int(self.labels[index]), ink > STROKE, np.clip((ink - STROKE + 0.15) / 0.3, 0, 1), None)


def digits_source(seed: int) -> Source:
    """Return the scans as ``train`` and ``val``; no scan is in both."""
    digits = load_digits()
    train, val = train_test_split(
        np.arange(len(digits.target)), test_size=0.2, stratify=digits.target, random_state=seed
    )
    scans = digits.images / 16
    splits = {
        name: Digits(scans[i], digits.target[i]) for name, i in (('train', np.sort(train)), ('val', np.sort(val)))
    }
    return Source(CLASSES, 'digit', 'scenes of scanned digits', splits, tuple(LAYOUTS))


def enlarge(scan: np.ndarray, size: int, angle: float = 0.0) -> np.ndarray:
    """Bicubic enlargement of an 8x8 scan to [size, size], turned by ``angle`` degrees; values in [0, 1]."""
    margin = Image.fromarray(np.pad(scan, 1).astype(np.float32), mode='F')
    big = margin.resize((size, size), Image.Resampling.BICUBIC).rotate(angle, Image.Resampling.BILINEAR)
    return np.clip(np.asarray(big), 0, 1)


def sample_surface(scan: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Sample points from the surface of a digit: its stroke, raised where the ink is dark, float32 [POINTS, 3]."""
    size = 32
    ink = enlarge(scan, size)
    stroke = ink > STROKE
    inside = np.pad(stroke, 1)
    rim = stroke & ~(inside[:-2, 1:-1] & inside[2:, 1:-1] & inside[1:-1, :-2] & inside[1:-1, 2:])
    faces, sides = np.argwhere(stroke), np.argwhere(rim)
    on_side = rng.random(POINTS) < 0.25
    pixels = np.where(
        on_side[:, None], sides[rng.integers(len(sides), size=POINTS)], faces[rng.integers(len(faces), size=POINTS)]
    )
    depth = 0.1 + 0.1 * ink[pixels[:, 0], pixels[:, 1]]
    across = np.where(on_side, rng.uniform(-1, 1, POINTS), rng.choice([-1.0, 1.0], POINTS))
    rows, cols = ((pixels + rng.random((POINTS, 2))) / size - 0.5).T
    xyz = np.stack([cols, -rows, across * depth], axis=1)
    angle = rng.uniform(-np.pi / 6, np.pi / 6)
    turn = np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]])
    xyz = (xyz - xyz.mean(axis=0)) @ turn.T + rng.normal(0, 0.005, (POINTS, 3))
    return (xyz / np.linalg.norm(xyz, axis=1).max()).astype(np.float32)


def save_image(path: Path, image: np.ndarray, license: Mapping[str, str] | None = None) -> None:
    """Write a uint8 image as PNG or JPEG, by the file's suffix; a JPEG says of which license it is, if any."""
    path.parent.mkdir(parents=True, exist_ok=True)
    comment = {'comment': f'{license["name"]} {license["url"]}'} if license else {}
    Image.fromarray(image).save(path, quality=95, **comment)


def write_imagenet(folder: Path, source: Source, seed: int, scenes: Sequence[int]) -> None:
    """``train/CLASS/NNNN.png`` and ``val/CLASS/NNNN.png``, 64x64 RGB."""
    for name, split in source.splits.items():
        for i, scan in enumerate(track(f'imagenet {name}', split.scans)):
            gray = (255 * enlarge(scan, IMAGE_SIZE)).astype(np.uint8)
            save_image(folder / name / CLASSES[split.labels[i]] / f'{i:04d}.png', np.stack([gray] * 3, axis=-1))


def scene_stream(source: Source, name: str, seed: int, count: int) -> Iterator[Scene]:
    """Yield the scenes of a split, the same ones for every layout that shows them."""
    for i in range(count):
        yield draw_scene(source.splits[name], np.random.default_rng([seed, len(name), i]))


def write_coco(folder: Path, source: Source, seed: int, scenes: Sequence[int]) -> None:
    """``train2017/``, ``val2017/`` and ``annotations/instances_*2017.json`` with boxes and run-length masks."""
    for name, count in zip(source.splits, scenes, strict=True):
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        licensed = {'license': 1} if source.license else {}
        for i, scene in enumerate(track(f'coco {name}', scene_stream(source, name, seed, count), count), start=1):
            save_image(folder / f'{name}2017' / f'{i:012d}.jpg', scene.image, source.license)
            size = {'height': SCENE_SIZE, 'width': SCENE_SIZE}
            images.append({'id': i, 'file_name': f'{i:012d}.jpg', **size, **licensed})
            for place, label in enumerate(scene.labels, start=1):
                encoded = rle.encode(np.asfortranarray(scene.instances == place, dtype=np.uint8))
                annotations.append(
                    {
                        'id': len(annotations) + 1,
                        'image_id': i,
                        'category_id': label + 1,
                        'bbox': [float(v) for v in rle.toBbox(encoded)],
                        'area': float(rle.area(encoded)),
                        'segmentation': {'size': encoded['size'], 'counts': encoded['counts'].decode()},
                        'iscrowd': 0,
                    }
                )
        categories = [
            {'id': c + 1, 'name': label, 'supercategory': source.kind} for c, label in enumerate(source.classes)
        ]
        # Tools that split or merge such files ask for both.
        licenses = [{'id': 1, **source.license}] if source.license else []
        about = {'info': {'description': source.description}, 'licenses': licenses}
        content = {**about, 'images': images, 'annotations': annotations, 'categories': categories}
        path = folder / 'annotations' / f'instances_{name}2017.json'
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(content))


def write_ade20k(folder: Path, source: Source, seed: int, scenes: Sequence[int]) -> None:
    """``images/`` and ``annotations/``, each ``training/`` and ``validation/``: 1 background, 2 ... the classes.

    ``classes.txt`` lists their names from 1 on.
    """
    folder.joinpath('classes.txt').write_text('\n'.join(['background', *source.classes, '']))
    for name, count, place in zip(source.splits, scenes, ('training', 'validation'), strict=True):
        for i, scene in enumerate(track(f'ade20k {name}', scene_stream(source, name, seed, count), count)):
            values = np.array([1, *(label + 2 for label in scene.labels)], dtype=np.uint8)
            save_image(folder / 'images' / place / f'{i:08d}.jpg', scene.image, source.license)
            save_image(folder / 'annotations' / place / f'{i:08d}.png', values[scene.instances])


def write_scanobjectnn(folder: Path, source: Source, seed: int, scenes: Sequence[int]) -> None:
    """``main_split/{training,test}_objectdataset_augmentedrot_scale75.h5`` (the files of PB_T50_RS)."""
    for (name, split), part in zip(source.splits.items(), ('training', 'test'), strict=True):
        clouds = [
            sample_surface(scan, np.random.default_rng([seed, len(name), i]))
            for i, scan in enumerate(track(f'scanobjectnn {name}', split.scans))
        ]
        path = folder / 'main_split' / f'{part}_objectdataset_augmentedrot_scale75.h5'
        path.parent.mkdir(parents=True, exist_ok=True)
        with h5py.File(path, 'w') as file:
            file.create_dataset('data', data=np.stack(clouds), track_times=False)
            file.create_dataset('label', data=split.labels.astype(np.int64), track_times=False)
            file.create_dataset('mask', data=np.zeros((len(clouds), POINTS), dtype=np.int64), track_times=False)


LAYOUTS: dict[str, Callable[[Path, Source, int, Sequence[int]], None]] = {
    'imagenet': write_imagenet,
    'coco': write_coco,
    'ade20k': write_ade20k,
    'scanobjectnn': write_scanobjectnn,
}


def track(what: str, items: Sequence[Item] | Iterator[Item], count: int | None = None) -> Iterator[Item]:
    """Yield the items, with a progress bar on a terminal and a line elsewhere."""
    total = len(items) if isinstance(items, (Sequence, np.ndarray)) else count
    if sys.stdout.isatty():
        yield from bar(items, description=what, total=total)
        return
    print(f'{what}: {total}', flush=True)
    yield from items


def write_layout(out: Path, layout: str, source: Source, seed: int, scenes: Sequence[int], force: bool) -> None:
    """Write one layout unless it is there already.

    Raises:
        DataError: Another data set is in its place and ``force`` is not set.
    """
    parameters = {
        'generator': GENERATOR,
        'layout': layout,
        'seed': seed,
        'classes': list(source.classes),
        **source.record,
    }
    if layout in ('coco', 'ade20k'):
        parameters['scenes'] = list(scenes)
    folder = out / layout
    record = folder / 'dataset.json'
    if folder.exists() and not force:
        if record.is_file() and json.loads(record.read_text()) == parameters:
            print(f'{folder} is complete')
            return
        raise DataError(f'{folder} holds another data set: give another --out, or --force to replace it.')
    out.mkdir(parents=True, exist_ok=True)
    for leftover in out.glob(f'.{layout}-*'):
        shutil.rmtree(leftover)
    scratch = Path(tempfile.mkdtemp(prefix=f'.{layout}-', dir=out))
    try:
        scratch.chmod(0o755)
        LAYOUTS[layout](scratch, source, seed, scenes)
        for name, text in source.notes.items():
            scratch.joinpath(name).write_text(text, encoding='utf-8')
        (scratch / 'dataset.json').write_text(json.dumps(parameters))
        shutil.rmtree(folder, ignore_errors=True)
        scratch.rename(folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--source', choices=('digits', 'stamps'), default='digits', help='what the data are made of')
    parser.add_argument('--stamps', type=Path, metavar='FOLDER', help=f'the stamps of --source stamps ({FOLDER})')
    parser.add_argument('--out', type=Path, help='folder of the layouts (data/digits, data/stamps)')
    parser.add_argument('--layout', nargs='+', choices=LAYOUTS, help='default: all that the source has')
    parser.add_argument('--scenes', nargs=2, type=int, default=(600, 150), metavar=('TRAIN', 'VAL'))
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--force', action='store_true', help='replace a data set of other parameters')
    args = parser.parse_args()
    if min(args.scenes) < 1 or args.seed < 0:
        parser.error(f'--scenes {args.scenes} must be positive and --seed {args.seed} not negative')
    if args.stamps is not None and args.source != 'stamps':
        parser.error(f'--stamps {args.stamps} goes with --source stamps')
    return args


def write(args: argparse.Namespace) -> None:
    """Write the layouts that the command line asks for.

    Raises:
        DataError: The source has no such layout or cannot be read, or another data set is in its place.
    """
    source = digits_source(args.seed) if args.source == 'digits' else stamps_source(args.stamps or FOLDER, args.seed)
    layouts = args.layout or source.layouts
    for layout in layouts:
        if layout not in source.layouts:
            raise DataError(f'--source {args.source} has no layout {layout}, but {" and ".join(source.layouts)}.')
    for layout in layouts:
        write_layout(args.out, layout, source, args.seed, args.scenes, args.force)


def main() -> None:
    """Command line."""
    args = parse_args()
    args.out = args.out or Path('data') / args.source
    try:
        write(args)
    except DataError as error:
        sys.exit(f'make_digits_data: {error}')
    except OSError as error:
        sys.exit(f'make_digits_data: cannot write {error.filename or args.out}: {error.strerror}.')
    except KeyboardInterrupt:
        sys.exit('make_digits_data: interrupted; nothing incomplete was left.')


if __name__ == '__main__':
    main()
