"""Random numbers that follow from a place in the training alone, so that no generator's state needs to be kept.

Before each step, everything is seeded from (seed, process, iteration); before each sample, from (seed, epoch,
position). What a step draws therefore depends neither on the number of data workers nor on where a training was cut.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from mmengine.dist import get_dist_info
from torch.utils.data import DataLoader

_STEP, _SAMPLE = 0, 1
_WORD = 0xFFFFFFFF


def seed_step(seed: int, iteration: int) -> None:
    """Seed Python's, NumPy's and torch's generators, CUDA's too, for one training step of this process.

    Args:
        seed: The run's seed.
        iteration: Number of steps before this one.
    """
    number = _seed_from(seed, _STEP, get_dist_info()[0], iteration)
    if torch.cuda.is_available():
        torch.cuda.manual_seed_all(number)


def seed_sample(seed: int, epoch: int, position: int) -> None:
    """Seed Python's, NumPy's and torch's generators for loading one sample.

    Args:
        seed: The run's seed.
        epoch: Number of epochs before this one; 0 in a loop over iterations.
        position: The sample's place in the epoch's order over all processes.
    """
    _seed_from(seed, _SAMPLE, epoch, position)


def _seed_from(*place: int) -> int:
    words = np.random.SeedSequence([number & _WORD for number in place]).generate_state(6)
    random.seed(int(words[0]) << 32 | int(words[1]))
    np.random.seed(words[2:4])
    number = int(words[4]) << 31 | int(words[5]) >> 1
    # A hundred times faster than torch.manual_seed, which visits every backend.
    torch.default_generator.manual_seed(number)
    return number


class SeededDataset:
    """A data set that is asked for (index, epoch, position) and seeds everything from the last two before it loads.

    Reading and setting any other attribute reaches the data set itself.

    Args:
        dataset: The data set.
        seed: The run's seed.
    """

    def __init__(self, dataset: Any, seed: int) -> None:
        vars(self).update(dataset=dataset, seed=seed)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getattr__(self, name: str) -> Any:
        if name == 'dataset' or name.startswith('__'):
            raise AttributeError(name)
        return getattr(self.dataset, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.dataset, name, value)

    def __getitem__(self, place: tuple[int, int, int]) -> Any:
        index, epoch, position = place
        seed_sample(self.seed, epoch, position)
        return self.dataset[index]


class PlacedBatchSampler:
    """A batch sampler that tells where each sample stands in the training, and can begin at any batch.

    Args:
        batches: The batch sampler that chooses.
        endless: Whether to go on with the next order at its end, as a loop over iterations needs it.
    """

    def __init__(self, batches: Any, *, endless: bool) -> None:
        self.batches = batches
        self.sampler = batches.sampler
        self.batch_size = batches.batch_size
        self.drop_last = getattr(batches, 'drop_last', False)
        self.endless = endless
        # Until a loop says where to begin there is nothing: mmengine's loops ask too early.
        self._place: tuple[int, int] | None = None

    def begin(self, epoch: int, start: int) -> None:
        """Say where the next iteration begins.

        Args:
            epoch: Number of epochs before this one.
            start: Number of batches of this epoch that are passed over without being loaded.
        """
        self._place = epoch, start

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[tuple[int, int, int]]]:
        if self._place is None:
            return
        (epoch, start), self._place = self._place, None
        rank, processes = get_dist_info()
        number = taken = orders = 0
        while orders == 0 or self.endless:
            if hasattr(self.sampler, 'set_epoch'):
                self.sampler.set_epoch(epoch + orders)
            for batch in self.batches:
                if number >= start:
                    yield [(index, epoch, (taken + i) * processes + rank) for i, index in enumerate(batch)]
                number += 1
                taken += len(batch)
            orders += 1


def place_samples(loader: DataLoader[Any], seed: int, *, endless: bool) -> DataLoader[Any]:
    """Return a loader of the same batches whose samples are seeded by their places.

    Args:
        loader: A loader of a data set that is asked by index.
        seed: The run's seed.
        endless: Whether it goes on after an epoch.
    """
    workers: dict[str, Any] = {}
    if loader.num_workers:
        workers = dict(
            prefetch_factor=loader.prefetch_factor,
            persistent_workers=loader.persistent_workers,
            multiprocessing_context=loader.multiprocessing_context,
        )
    return DataLoader(
        SeededDataset(loader.dataset, seed),  # type: ignore[arg-type]
        batch_sampler=PlacedBatchSampler(loader.batch_sampler, endless=endless),  # type: ignore[arg-type]
        num_workers=loader.num_workers,
        collate_fn=loader.collate_fn,
        pin_memory=loader.pin_memory,
        timeout=loader.timeout,
        worker_init_fn=loader.worker_init_fn,
        **workers,
    )
