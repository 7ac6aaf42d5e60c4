"""How a data set falls into batches: whether there is any, and whether one is of a single sample."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from mmengine.config import Config
from mmengine.registry import DATASETS

from coc_core.errors import UserError


def check_batches(phase: str, samples: int, loader: Mapping[str, Any], processes: int) -> None:
    """Check that every process has a batch, and that evaluation leaves no sample out.

    Args:
        phase: Out of train, val, test.
        samples: Number of samples that can be used.
        loader: The config of the data loader, with ``batch_size`` and ``drop_last``.
        processes: Number of processes.

    Raises:
        UserError: Training would take no step, or an evaluation would not measure all samples.
    """
    size, each = loader.get('batch_size') or 1, -(-samples // processes)
    if not loader.get('drop_last'):
        return
    place = f'{phase}_dataloader'
    if each < size:
        among = f' ({each} on each of {processes} processes)' if processes > 1 else ''
        raise UserError(
            f'The {phase} data makes no batch: it has {samples} samples{among}, {place}.batch_size is {size}, and '
            f'{place}.drop_last=True leaves out what does not fill one. Set {place}.batch_size to at most {each}, or '
            f'{place}.drop_last=False.'
        )
    if phase != 'train' and each % size:
        raise UserError(
            f'{place}.drop_last=True leaves {each % size} of {each} samples out of the evaluation: set it to False.'
        )


def smallest_batch(samples: int, loader: Mapping[str, Any], processes: int) -> int:
    """Return the number of samples in the smallest batch that a process trains on.

    Args:
        samples: Number of samples that can be used.
        loader: The config of the data loader, with ``batch_size`` and ``drop_last``.
        processes: Number of processes.
    """
    size, each = loader.get('batch_size') or 1, -(-samples // processes)
    rest = each % size
    return int(size if loader.get('drop_last') or not rest else rest)


def nothing_usable(phase: str) -> str:
    """Return the sentence about data of which nothing is left."""
    return f'The {phase} data has no samples that can be used: tools/dataset_converters/check_data.py says why.'


def is_of_empty_data(error: Exception) -> bool:
    """Whether mmengine failed to pack a list of samples that is empty."""
    return 'need at least one array to concatenate' in str(error)


def check_loading(cfg: Config, phase: str) -> None:
    """Build the data of a phase as a training in one process does, and check its batches.

    Args:
        cfg: The config.
        phase: Out of train, val, test.

    Raises:
        UserError: The data cannot be loaded, nothing of it can be used, or it makes no batch.
    """
    loader = cfg.get(f'{phase}_dataloader') or {}
    if not isinstance(loader.get('dataset'), Mapping):
        return
    try:
        with DATASETS.switch_scope_and_registry(cfg.get('default_scope')) as registry:
            samples = len(registry.build(deepcopy(loader['dataset'])))
    except Exception as error:
        if is_of_empty_data(error):
            raise UserError(nothing_usable(phase)) from error
        raise UserError(f'The {phase} data cannot be loaded ({type(error).__name__}: {error}).') from error
    if not samples:
        raise UserError(nothing_usable(phase))
    if phase != 'train' or (loader.get('sampler') or {}).get('type') != 'InfiniteSampler':
        check_batches(phase, samples, loader, processes=1)
