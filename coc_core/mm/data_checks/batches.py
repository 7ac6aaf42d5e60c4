"""How a data set falls into batches: whether there is any, and whether one is of a single sample."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

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
        among = f' on each of {processes} processes' if processes > 1 else ''
        raise UserError(
            f'The {phase} data makes no batch: {samples} samples are {each}{among}, {place}.batch_size is {size}, and '
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
