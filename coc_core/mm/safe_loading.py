"""Checkpoints are read weights-only, always: what a file may hold beyond tensors is listed here."""

from __future__ import annotations

import argparse
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from mmengine.runner import CheckpointLoader

from coc_core.mm.errors import LaunchError

_NUMPY_SCALARS = (
    'bool',
    'int8',
    'int16',
    'int32',
    'int64',
    'uint8',
    'uint16',
    'uint32',
    'uint64',
    'float16',
    'float32',
    'float64',
)
_STATISTICS = ('min', 'max', 'current', 'mean')


def _history_statistic(owner: object, name: str) -> Callable[..., Any]:
    """Stands in for `getattr`, by which a pickled HistoryBuffer names its own statistics methods."""
    if owner is not HistoryBuffer or name not in _STATISTICS:
        raise pickle.UnpicklingError(f'getattr({owner!r}, {name!r}) is not allowed in a checkpoint')
    method: Callable[..., Any] = getattr(HistoryBuffer, name)
    return method


def allow_checkpoint_types() -> None:
    """Allows torch's weights-only reader what mmengine's and the published checkpoints hold beyond tensors.

    These are mmengine's HistoryBuffer, numeric numpy arrays and scalars (under the module names of numpy 1 and 2)
    and argparse.Namespace. None of them can run code from the file.
    """
    rebuild = np.zeros(1).__reduce__()[0]
    scalar = np.float64(0).__reduce__()[0]
    allowed: list[Any] = [HistoryBuffer, argparse.Namespace, np.ndarray, np.dtype]
    allowed += [type(np.dtype(name)) for name in _NUMPY_SCALARS]
    for module in ('numpy.core.multiarray', 'numpy._core.multiarray'):
        allowed += [(rebuild, f'{module}._reconstruct'), (scalar, f'{module}.scalar')]
    # Real getattr on the list would let a file reach any attribute; pickle protocol 2 says __builtin__.
    allowed += [(_history_statistic, 'builtins.getattr'), (_history_statistic, '__builtin__.getattr')]
    torch.serialization.add_safe_globals(allowed)


def load_weights_only(path: str | Path, map_location: Any = None) -> Any:
    """Reads a checkpoint without running anything that the file could hold.

    Raises:
        LaunchError: The file is missing, truncated, zero-filled, no checkpoint, or holds something that is not on
            the allow-list.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise LaunchError(f'The checkpoint {file} does not exist.')
    allow_checkpoint_types()
    try:
        return torch.load(file, map_location=map_location, weights_only=True)
    except pickle.UnpicklingError as error:
        if is_intact(file):
            raise LaunchError(
                f'The checkpoint {file} holds more than weights and was not read: {_reason(error)}'
            ) from error
        raise LaunchError(f'The file {file} is no checkpoint, or is damaged.') from error
    except (RuntimeError, EOFError, OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        raise LaunchError(f'The file {file} is no checkpoint, or is damaged.') from error


def install_safe_loader() -> None:
    """Makes mmengine read every local checkpoint by `load_weights_only`, in both OpenMMLab families.

    OneDL's own loader falls back to plain pickle where the weights-only reader refuses a file.
    """
    allow_checkpoint_types()
    # mmengine's log line prints the loader's name from its 11th letter on.
    CheckpointLoader.register_scheme('', loader=load_from_local_weights_only, force=True)


def load_from_local_weights_only(filename: str, map_location: Any = None) -> Any:
    """The loader that `install_safe_loader` gives to mmengine."""
    return load_weights_only(filename, map_location)


def is_intact(path: str | Path) -> bool:
    """Whether a file is a whole torch archive: a torn one lacks the directory that is written last."""
    return zipfile.is_zipfile(path)


def _reason(error: BaseException) -> str:
    """Torch's message without its advice to switch weights-only off."""
    reasons = [line.strip() for line in str(error).splitlines() if 'WeightsUnpickler error:' in line]
    text = reasons[0].split('WeightsUnpickler error:')[1].strip() if reasons else str(error).splitlines()[0]
    return text.split('. Please use')[0].split(' was not an allowed global')[0].rstrip('.') + '.'
