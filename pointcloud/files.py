"""Files of clouds as what is predicted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coc_core.errors import UserError
from coc_core.mm.prediction.inputs import Item
from pointcloud.clouds import content_problems, place_problems
from pointcloud.dataset import unreadable
from pointcloud.point_files import STORED_POINTS, SUFFIXES, read_points
from pointcloud.transforms import NormalizePoints

_HDF5 = ('.h5', '.hdf5')
_READ_AT_ONCE = 256


class CloudFiles:
    """Reads HDF5 files of the layout of ScanObjectNN, arrays of NumPy, text with x y z in a line, PLY and OFF.

    Files of several clouds are read as they are, and those of one as new_config.py reads them (see `read_points`).

    Attributes:
        noun: What messages call the files.
        endings: Endings of what is taken from a folder.
        file_step: A step of the pipeline that reads files: clouds have none.

    Args:
        transforms: The pipeline's steps, built.
    """

    noun = 'clouds'
    endings = (*_HDF5, *SUFFIXES, '.txt')
    file_step = None

    def __init__(self, transforms: Sequence[Any]) -> None:
        self._least = max((getattr(step, 'num_points', 1) for step in transforms), default=1)
        self._anywhere = any(isinstance(step, NormalizePoints) for step in transforms)

    def has_several(self, path: Path) -> bool:
        """Whether a file is of HDF5, or has an array of clouds.

        Raises:
            UserError: An array cannot be read.
        """
        ending = path.suffix.lower()
        return ending in _HDF5 or (ending == '.npy' and _array(path).ndim == 3)

    def count(self, path: Path) -> int:
        """Return the number of clouds in a file of several.

        Raises:
            UserError: It cannot be read.
        """
        if path.suffix.lower() == '.npy':
            return len(_array(path))
        with _opened(path) as file:
            return len(_data_of(file, path))

    def contents(self, path: Path) -> Iterator[NDArray[Any]]:
        """Yield the clouds of a file of several, float32 [P, 3].

        Raises:
            UserError: It cannot be read.
        """
        if path.suffix.lower() == '.npy':
            yield from (np.asarray(cloud[:, :3], np.float32) for cloud in _array(path))
            return
        with _opened(path) as file:
            data = _data_of(file, path)
            for first in range(0, len(data), _READ_AT_ONCE):
                try:
                    part = data[first : first + _READ_AT_ONCE]
                except OSError as error:
                    raise UserError(f'{path} {unreadable(error)}.') from error
                yield from part.astype(np.float32, copy=False)

    def start(self, item: Item) -> dict[str, Any]:
        """Return what the pipeline starts with, as the data set would give it.

        Raises:
            UserError: The file cannot be read, or the cloud is none that a model can have learned from.
        """
        points = self._points(item)
        path = Path(item.path)
        if len(points) and np.ptp(points, axis=0).max() == 0:
            raise UserError(f'{item} shows no shape: all its points are the same.')
        problems = content_problems(path, points[None], np.zeros(1, int), 1)
        told = place_problems(path, points[None], anywhere=self._anywhere)
        problems += [problem for problem in told if problem.level == 'error']
        if problems:
            raise UserError(f'{item} {problems[0].what}.')
        return {'points': points, 'sample': str(item), 'place': item.place or 0}

    def columns(self, data: Mapping[str, Any]) -> dict[str, int] | None:
        """Return the number of different points that were taken from the file: of few, some are taken again."""
        return {'points': len(np.unique(data['points'], axis=0))}

    def problem(self, item: Item) -> str | None:
        """Return the sentence of a file that cannot be read: `start` has said it."""
        return None

    def shown(self, item: Item) -> NDArray[Any]:
        """Return the points, float32 [P, 3].

        Raises:
            UserError: They cannot be read.
        """
        return self._points(item).astype(np.float32, copy=False)

    def _points(self, item: Item) -> NDArray[Any]:
        if item.content is not None:
            return item.content
        return read_points(Path(item.path), self._least, max(self._least, STORED_POINTS), seed=0)


def _opened(path: Path) -> Any:
    import h5py

    try:
        return h5py.File(path, 'r')
    except OSError as error:
        raise UserError(f'{path} {unreadable(error)}.') from error


def _data_of(file: Any, path: Path) -> Any:
    data = file.get('data')
    shape = getattr(data, 'shape', None)
    if shape is None or len(shape) != 3 or shape[-1] != 3 or not np.issubdtype(data.dtype, np.floating):
        what = f"'data' of shape {shape} and type {data.dtype}" if shape is not None else "no 'data'"
        raise UserError(f'{path} has {what}, where floating [N, P, 3] is expected.')
    return data


def _array(path: Path) -> NDArray[Any]:
    try:
        array: NDArray[Any] = np.load(path, mmap_mode='r', allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f'{path} cannot be read as an array ({error}).') from error
    numbers = np.issubdtype(array.dtype, np.floating) or np.issubdtype(array.dtype, np.integer)
    if array.ndim not in (2, 3) or array.shape[-1] < 3 or not numbers:
        raise UserError(
            f'{path} holds {array.dtype} of shape {list(array.shape)}, where numbers [P, 3] or [N, P, 3] are expected.'
        )
    return array
