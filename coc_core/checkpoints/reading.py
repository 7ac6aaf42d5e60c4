"""Reads checkpoint files without running anything they could hold: what is allowed beyond tensors is listed here."""

from __future__ import annotations

import argparse
import math
import pickle
import re
import struct
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch

from coc_core.errors import UserError

_DAMAGES = (
    RuntimeError, EOFError, OSError, ValueError, LookupError, TypeError, AttributeError, AssertionError, MemoryError,
    zipfile.BadZipFile, zlib.error, struct.error,
)  # fmt: skip
_STATISTICS = ('min', 'max', 'current', 'mean')
_HISTORY_MODULE = 'mmengine.logging.history_buffer'


class CheckpointError(UserError):
    """A checkpoint cannot be read or does not fit, told in one sentence."""


class _HistoryBuffer:
    """Stands in for mmengine's class of that name where mmengine is not loaded: holds what the file says."""

    def mean(self) -> None:
        """One of the names by which a pickled HistoryBuffer refers to itself; the others are the same."""

    min = max = current = mean


class _Kind:
    """A numeric data type named in a file; nothing but its byte order is taken from the rest of it."""

    def __init__(self, name: str, *_: object) -> None:
        if not isinstance(name, str) or not re.fullmatch(r'[<>|=]?([biuf][1248]|\?)', name):
            raise pickle.UnpicklingError(f'numpy.dtype({name!r}) is not a number and not allowed in a checkpoint')
        self.dtype = np.dtype(name)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if len(state) > 1 and state[1] in ('<', '>'):
            self.dtype = self.dtype.newbyteorder(state[1])


class _Array(np.ndarray):  # type: ignore[type-arg]
    """A numeric array out of a file, whose shape and type must fit its bytes; pickled again it is an ordinary one."""

    def __new__(cls, *_: object) -> _Array:
        raise pickle.UnpicklingError('numpy.ndarray(...) is not allowed in a checkpoint')

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, kind, fortran, data = state
        sizes = isinstance(shape, tuple) and all(type(size) is int and size >= 0 for size in shape)
        if not sizes or type(kind) is not _Kind or not isinstance(data, bytes):
            raise pickle.UnpicklingError('an array that holds other things than numbers is not allowed in a checkpoint')
        if math.prod(shape) * kind.dtype.itemsize != len(data):
            raise pickle.UnpicklingError(f'an array of shape {shape} does not fit its {len(data)} bytes')
        super().__setstate__((1, shape, kind.dtype, bool(fortran), data))  # type: ignore[arg-type]

    def __reduce__(self) -> Any:
        return self.view(np.ndarray).__reduce__()


def _empty_array(*_: object) -> _Array:
    """Stands in for numpy's `_reconstruct`: what an array is comes with its state."""
    return np.ndarray.__new__(_Array, (0,), np.uint8)


def _scalar(kind: _Kind, data: bytes) -> Any:
    """Stands in for numpy's `scalar`."""
    if type(kind) is not _Kind or not isinstance(data, bytes) or len(data) != kind.dtype.itemsize:
        raise pickle.UnpicklingError('a numpy scalar that is not a number is not allowed in a checkpoint')
    return np.frombuffer(data, kind.dtype)[0]


def allowed_types() -> list[Any]:
    """Return what torch's weights-only reader may build beyond tensors; none of it can run code from a file.

    These are mmengine's HistoryBuffer, numeric numpy arrays and scalars (under the module names of numpy 1 and 2)
    and argparse.Namespace.
    """
    allowed: list[Any] = [(_history_buffer(), f'{_HISTORY_MODULE}.HistoryBuffer'), argparse.Namespace]
    # numpy's own constructors would take shapes, flags and object types from the file as they are.
    allowed += [(_Array, 'numpy.ndarray'), (_Kind, 'numpy.dtype')]
    for module in ('numpy.core.multiarray', 'numpy._core.multiarray'):
        allowed += [(_empty_array, f'{module}._reconstruct'), (_scalar, f'{module}.scalar')]
    # Real getattr on the list would let a file reach any attribute; pickle protocol 2 says __builtin__.
    return [*allowed, (_history_statistic, 'builtins.getattr'), (_history_statistic, '__builtin__.getattr')]


def _history_buffer() -> Any:
    return getattr(sys.modules.get(_HISTORY_MODULE), 'HistoryBuffer', _HistoryBuffer)


def _history_statistic(owner: object, name: str) -> Callable[..., Any]:
    """Stands in for `getattr`, by which a pickled HistoryBuffer names its own statistics methods."""
    if owner is not _history_buffer() or name not in _STATISTICS:
        raise pickle.UnpicklingError(f'getattr({owner!r}, {name!r}) is not allowed in a checkpoint')
    method: Callable[..., Any] = getattr(owner, name)
    return method


def read(path: str | Path, map_location: Any = 'cpu') -> Any:
    """Read a checkpoint: a file of torch (zipped or of the older format) or of safetensors, told apart by content.

    Args:
        path: The file.
        map_location: The device of the tensors, as `torch.load` takes it.

    Returns:
        What was saved; of safetensors ``{'state_dict': tensors, 'meta': the file's metadata}``.

    Raises:
        CheckpointError: The file is missing, truncated, zero-filled, no checkpoint, or holds something that is not
            on the allow-list.
    """
    try:
        file = Path(path).expanduser()
        if file.is_dir():
            raise CheckpointError(f'{file} is a folder, where a checkpoint file is expected.')
        if not file.is_file():
            raise CheckpointError(f'The checkpoint {file} does not exist.')
        with file.open('rb') as stream:
            start = stream.read(4096)
    except (OSError, RuntimeError) as error:
        raise CheckpointError(f'The checkpoint {path} cannot be opened: {error}.') from error
    if not start.strip(b'\0'):
        raise CheckpointError(f'The file {file} is no checkpoint, or is damaged: it is empty or begins with zeros.')
    if start[8:9] == b'{':
        return _read_safetensors(file, map_location)
    try:
        if zipfile.is_zipfile(file):
            check_sums(file)
        return _load(file, map_location)
    except pickle.UnpicklingError as error:
        if is_whole(file):
            raise CheckpointError(
                f'The checkpoint {file} holds more than weights and was not read: {_reason(error)}'
            ) from error
        raise CheckpointError(f'The file {file} is no checkpoint, or is damaged.') from error
    except torch.OutOfMemoryError:
        raise
    except _DAMAGES as error:
        raise CheckpointError(f'The file {file} is no checkpoint, or is damaged.') from error


def _load(file: Path, map_location: Any, *, mmap: bool = False) -> Any:
    # What is allowed already must stay so: leaving the context forbids all that it allowed.
    known = torch.serialization.get_safe_globals()
    with torch.serialization.safe_globals([kind for kind in allowed_types() if kind not in known]):
        return torch.load(file, map_location=map_location, weights_only=True, mmap=mmap)


def _read_safetensors(file: Path, map_location: Any) -> dict[str, Any]:
    device = 'cpu' if map_location is None else map_location
    try:
        with safetensors.safe_open(file, framework='pt') as opened:
            meta = opened.metadata() or {}
        tensors = safetensors.torch.load_file(file, device=str(device))
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f'The file {file} is no checkpoint, or is damaged: {error}.') from error
    return {'state_dict': tensors, 'meta': meta}


def check_sums(file: Path) -> None:
    """Compare every part of torch's archive with its checksum: torch itself does not notice overwritten weights.

    Raises:
        CheckpointError: The file is no archive, or a part is not what was written.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            parts = archive.infolist()
            # Torch takes a part that is marked as a folder for memory that was written.
            whole = not any(part.external_attr & 0x10 for part in parts)
            # Torch writes zero for all of them where checksums are switched off.
            if whole and any(part.CRC for part in parts):
                whole = archive.testzip() is None
    except _DAMAGES as error:
        raise CheckpointError(f'The file {file} is no checkpoint, or is damaged.') from error
    if not whole:
        raise CheckpointError(f'The file {file} is no checkpoint, or is damaged.')


def read_without_tensors(path: Path) -> dict[str, Any]:
    """Read what a file of torch says of itself; its tensors stay on the disk, and their checksums are not compared.

    Raises:
        CheckpointError: The file is no checkpoint, is damaged, or holds something that is not on the allow-list.
    """
    if not zipfile.is_zipfile(path):
        raise CheckpointError(f'The file {path} is no checkpoint, or is damaged.')
    try:
        content = _load(path, 'cpu', mmap=True)
    except (pickle.UnpicklingError, *_DAMAGES) as error:
        raise CheckpointError(f'The file {path} is no checkpoint, or is damaged.') from error
    return content if isinstance(content, dict) else {}


def check_file(path: Path) -> None:
    """Check, without reading it whole, that a file can be a checkpoint.

    Raises:
        CheckpointError: It does not exist, is a folder, or is empty.
    """
    if path.is_dir():
        raise CheckpointError(f'{path} is a folder, where a checkpoint file is expected.')
    if not path.is_file():
        raise CheckpointError(f'The checkpoint {path} does not exist.')
    if path.stat().st_size == 0:
        raise CheckpointError(f'The checkpoint {path} is empty.')


def is_whole(path: str | Path) -> bool:
    """Whether a file is a whole torch archive: a torn one lacks the directory that is written last."""
    return zipfile.is_zipfile(path)


def _reason(error: BaseException) -> str:
    """Torch's message without its advice to switch weights-only off."""
    reasons = [line.strip() for line in str(error).splitlines() if 'WeightsUnpickler error:' in line]
    text = reasons[0].split('WeightsUnpickler error:')[1].strip() if reasons else str(error).splitlines()[0]
    return text.split('. Please use')[0].split(' was not an allowed global')[0].rstrip('.') + '.'
