"""Chooses what a training's length, batch and image size are, by the data and by the machine."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import torch

from coc_core.variants import CoCConfig

_STEPS_OF_AN_EPOCH = 8
_BYTES_OF_A_NUMBER = 4


@dataclass(frozen=True)
class Machine:
    """What a training runs on.

    Attributes:
        gpu: Whether it is a GPU.
        memory: Its free memory in bytes; without a GPU, main memory.
        cores: CPU cores that this process may use.
    """

    gpu: bool
    memory: int
    cores: int

    @property
    def workers(self) -> int:
        """Processes that load data."""
        return max(1, min(8, self.cores - 1))

    @property
    def name(self) -> str:
        """The machine in words."""
        return f'{"a GPU" if self.gpu else f"{self.cores} CPU cores"} with {self.memory / 2**30:.0f} GiB free'


def this_machine() -> Machine:
    """Return the machine of this process."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1
    if torch.cuda.is_available():
        return Machine(True, torch.cuda.mem_get_info()[0], cores)
    # Not every system tells what is free.
    pages = 'SC_AVPHYS_PAGES' if 'SC_AVPHYS_PAGES' in os.sysconf_names else 'SC_PHYS_PAGES'
    return Machine(False, os.sysconf(pages) * os.sysconf('SC_PAGE_SIZE'), cores)


@dataclass(frozen=True)
class Budget:
    """How long one task trains, and what it is at most given.

    Attributes:
        samples: Samples that a training from pretrained weights sees, over all its epochs.
        epochs: The fewest and the most epochs of it.
        from_scratch: How much longer one from random weights is.
        batch: The largest batch on a GPU, and without one.
        size: The largest image size on a GPU, and without one.
        smallest_batch: Where batch normalization needs several samples: 2.
    """

    samples: int
    epochs: tuple[int, int]
    from_scratch: int
    batch: tuple[int, int]
    size: tuple[int, int]
    smallest_batch: int = 1

    def fitting_epochs(self, samples: int, *, pretrained: bool) -> int:
        """Return the number of epochs for so many training samples: of few, each is seen more often."""
        longer = 1 if pretrained else self.from_scratch
        fewest, most = self.epochs
        return longer * max(fewest, min(most, round(self.samples / samples)))

    def fitting_size(self, sides: Sequence[int], machine: Machine, step: int = 32) -> int:
        """Return an image size, a multiple of ``step``, for images of such sides; small images are not blown up."""
        largest = self.size[0] if machine.gpu else self.size[1]
        wanted = round(median(sides) / step) * step if sides else largest
        # Fewer than two regions' worth of points in the last stage leave nothing to cluster.
        return int(max(2 * step, min(largest // step * step, wanted)))

    def fitting_batch(self, samples: int, sample_bytes: float, machine: Machine) -> int:
        """Return a batch, a power of two, that memory holds and that leaves an epoch a few steps.

        Args:
            samples: Training samples.
            sample_bytes: What one of them takes while it is learned.
            machine: Where.
        """
        # Weights, their averages and the optimizer's share stay beside it, and estimates err.
        held = machine.memory / 2 / sample_bytes
        limit = min(self.batch[0] if machine.gpu else self.batch[1], held, samples / _STEPS_OF_AN_EPOCH)
        batch = 1
        while 2 * batch <= limit:
            batch *= 2
        return max(batch, self.smallest_batch)


def training_bytes(config: CoCConfig, size: int, surroundings: float = 1.0) -> float:
    """Estimate the memory that one image takes while a backbone learns from it, in float32.

    Args:
        config: The backbone's variant.
        size: Rows and columns of the image.
        surroundings: What neck and heads add, as a factor.
    """
    numbers, positions = 0.0, (size / 4) ** 2
    for depth, dim, ratio in zip(config.depths, config.dims, config.mlp_ratios, strict=True):
        # A block keeps the MLP's hidden layer before and after its GELU, and about eight maps.
        numbers += positions * depth * dim * (2 * ratio + 8)
        positions /= 4
    return surroundings * _BYTES_OF_A_NUMBER * numbers
