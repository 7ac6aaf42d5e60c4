"""Which samples a data set holds, in a few letters: other ones of the same number and classes are other data."""

from __future__ import annotations

import hashlib
import os.path as osp
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np


def identity_of(dataset: Any) -> tuple[str, str] | None:
    """Return what tells the samples of a built data set from others.

    It follows from the files' names below a folder and from labels and boxes, and does not change where all of the data
    lies in another folder. Nothing is opened but what the data set has read already.

    Args:
        dataset: The data set; one is looked at once.

    Returns:
        What tells the samples, in whatever order, and what tells them in their order; None where the data set does not
        say what its samples are.
    """
    return _identity(dataset) if hasattr(dataset, 'get_data_info') else None


@lru_cache(maxsize=8)
def _identity(dataset: Any) -> tuple[str, str] | None:
    order, total = hashlib.sha256(), 0
    folders: dict[str, dict[str, str]] = {'img_path': {}, 'seg_map_path': {}, 'sample': {}}
    for place in range(len(dataset)):
        info = dataset.get_data_info(place)
        if not isinstance(info, Mapping):
            return None
        told = _told(info, folders)
        order.update(told)
        total += int.from_bytes(hashlib.sha256(told).digest(), 'big')
    return f'{total % 2**128:032x}', order.hexdigest()[:32]


def _told(info: Mapping[str, Any], folders: Mapping[str, dict[str, str]]) -> bytes:
    """Return what tells a sample from others.

    Args:
        info: What the data set says of it.
        folders: Of each key that names a file, folders as they are seen from that of the first one; new ones are added.
    """
    parts: list[Any] = []
    for key, seen in folders.items():
        if isinstance(info.get(key), str):
            folder, name = osp.split(info[key])
            if folder not in seen:
                seen[folder] = osp.relpath(folder or '.', next(iter(seen), folder) or '.')
            parts += [seen[folder], name]
    # Pictures and clouds that a data set holds in memory.
    parts += [hashlib.sha256(np.asarray(info[key]).tobytes()).hexdigest() for key in ('img', 'points') if key in info]
    parts.append(np.asarray(info.get('gt_label', ())).tolist())
    parts += [(item.get('bbox_label'), item.get('bbox')) for item in info.get('instances') or ()]
    return f'{parts!r}\n'.encode(errors='surrogateescape')
