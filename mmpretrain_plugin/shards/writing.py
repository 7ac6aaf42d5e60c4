"""Writes the images of class folders into shards, the large ones made smaller."""

from __future__ import annotations

import hashlib
import json
import tarfile
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import mmcv
import numpy as np
from webdataset import TarWriter

from coc_core.errors import UserError
from coc_core.files import remove_unfinished, replacing, write_bytes
from coc_core.visualization.decoding import decode, decoded
from mmpretrain_plugin.own_data import Images
from mmpretrain_plugin.shards.index import (
    CLASSES,
    RECORD,
    ShardIndex,
    read_index,
    read_record,
    shard_path,
    write_index,
)

# What formats begin with whose files are often called otherwise; ImageNet has a PNG that is called JPEG.
_BEGINNINGS = {b'\xff\xd8\xff': 'jpg', b'\x89PNG': 'png'}


@dataclass(frozen=True)
class Recipe:
    """What shards are made with.

    Attributes:
        shorter_side: Pixels that the shorter side of an image has at most; 0 leaves every image as it is.
        quality: Of the JPEGs that are made, 1 to 100.
        shard_size: Images in a shard.
        seed: Of the order of the images.
    """

    shorter_side: int
    quality: int
    shard_size: int
    seed: int


class Entry(NamedTuple):
    """An image that goes into a shard.

    Attributes:
        key: What webdataset calls it.
        path: Its file.
        name: The file's path in the folder of all classes.
        label: Its label.
    """

    key: str
    path: Path
    name: str
    label: int


class Packed(NamedTuple):
    """An image as it lies in a shard.

    Attributes:
        content: Its bytes.
        ending: What they are, as the ending of a file's name.
        resized: Whether it was made smaller.
    """

    content: bytes
    ending: str
    resized: bool


def plan_shards(images: Images, folder: Path, recipe: Recipe) -> dict[Path, list[Entry]]:
    """Begin a folder of shards, or go on with one, and return the images of each shard.

    Images are shuffled once for all, so that those which follow each other are of many classes.

    Args:
        images: The images.
        folder: The folder; it is made.
        recipe: What the shards are made with.

    Raises:
        UserError: The folder holds other shards, or cannot be written.
    """
    order = np.random.default_rng(recipe.seed).permutation(len(images.names)).tolist()
    entries = [
        Entry(f'{number:08d}', images.folder / images.names[place], images.names[place], images.labels[place])
        for number, place in enumerate(order)
    ]
    parts = [entries[i : i + recipe.shard_size] for i in range(0, len(entries), recipe.shard_size)]
    listed = '\n'.join(f'{name} {label}' for name, label in zip(images.names, images.labels, strict=True))
    record = {
        'shards': len(parts),
        'images': len(entries),
        'list of images': hashlib.sha256(listed.encode()).hexdigest(),
        **asdict(recipe),
    }
    if (folder / RECORD).exists():
        _check_same(folder, record)
    remove_unfinished(folder)
    write_bytes(folder / CLASSES, ''.join(f'{name}\n' for name in images.classes).encode())
    write_bytes(folder / RECORD, json.dumps(record, indent=1).encode())
    return {shard_path(folder, number): part for number, part in enumerate(parts)}


def _check_same(folder: Path, record: dict[str, object]) -> None:
    found = read_record(folder)
    other = [key for key in record if found.get(key) != record[key]]
    if other:
        raise UserError(
            f'{folder} holds shards of other images or with other settings ({", ".join(other)}): give another --out, '
            'or remove the folder.'
        )


def is_complete(shard: Path, *, skip: bool) -> bool:
    """Whether a shard is there, with all images unless such as cannot be read may be left out."""
    try:
        index = read_index(shard)
    except UserError:
        return False
    return skip or not index.left_out


def write_shard(shard: Path, entries: Sequence[Entry], recipe: Recipe, *, skip: bool) -> list[str]:
    """Write a tar file and its index.

    Args:
        shard: The tar file.
        entries: Its images.
        recipe: What it is made with.
        skip: Leave images that cannot be read out; else nothing is written where there is one.

    Returns:
        A sentence about each image that cannot be read.

    Raises:
        UserError: A file cannot be written.
    """
    index = ShardIndex(0, [], [], [], [], [], 0, [])
    try:
        with replacing(shard) as beside:
            resized = _write_tar(beside, entries, recipe, index)
            if index.left_out and not skip:
                raise _Incomplete
            with tarfile.open(beside) as tar:
                images = (member for member in tar if not member.name.endswith('.cls'))
                index.offsets.extend(member.offset_data for member in images)
            size = beside.stat().st_size
            shard.with_suffix('.json').unlink(missing_ok=True)
    except _Incomplete:
        return index.left_out
    write_index(shard, ShardIndex(**{**vars(index), 'size': size, 'resized': resized}))
    return index.left_out


class _Incomplete(Exception):
    """An image is missing, so that the file beside the shard must not take its place."""


def _write_tar(path: Path, entries: Sequence[Entry], recipe: Recipe, index: ShardIndex) -> int:
    """Write images to a tar file and fill the lists of its index; return how many were made smaller."""
    resized = 0
    # With a time of their own equal files would differ.
    with path.open('wb') as file, TarWriter(file, encoder=False, mtime=0) as tar:
        for entry in entries:
            packed = pack(entry.path, recipe)
            if isinstance(packed, str):
                index.left_out.append(f'{entry.path} {packed}.')
                continue
            label = str(entry.label).encode()
            tar.write({'__key__': entry.key, 'cls': label, packed.ending: packed.content})
            index.names.append(entry.name)
            index.labels.append(entry.label)
            index.sizes.append(len(packed.content))
            index.checksums.append(zlib.crc32(packed.content))
            resized += packed.resized
    return resized


def pack(path: Path, recipe: Recipe) -> Packed | str:
    """Return an image as it lies in a shard, or the rest of a sentence about one that cannot be read.

    One whose shorter side is at most ``recipe.shorter_side`` keeps its bytes. A larger one is decoded as in training,
    turned by its EXIF orientation and in three colors, made smaller by Pillow (bicubic), and becomes a JPEG.

    Args:
        path: The file.
        recipe: What the shard is made with.
    """
    pixels = decoded(path, decode)
    if isinstance(pixels, str):
        return pixels
    height, width = pixels.shape[:2]
    shorter = min(height, width)
    if not recipe.shorter_side or shorter <= recipe.shorter_side:
        content = path.read_bytes()
        own = path.suffix[1:].lower()
        return Packed(content, next((e for b, e in _BEGINNINGS.items() if content.startswith(b)), own), False)
    size = tuple(round(side * recipe.shorter_side / shorter) for side in (width, height))
    smaller = mmcv.imresize(pixels, size, interpolation='bicubic', backend='pillow')
    _, encoded = cv2.imencode('.jpg', smaller, [cv2.IMWRITE_JPEG_QUALITY, recipe.quality])
    return Packed(encoded.tobytes(), 'jpg', True)
