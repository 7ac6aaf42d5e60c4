"""The order in which shards are read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from mmengine.dataset import DefaultSampler
from mmpretrain.registry import DATA_SAMPLERS
from numpy.typing import NDArray

from coc_core.errors import UserError

WINDOW = 192
"""How many shards are read at a time; many numbers of GPUs divide it."""


@DATA_SAMPLERS.register_module()
class ShardSampler(DefaultSampler):  # type: ignore[misc]
    """An order by (seed, epoch) in which every process reads a few shards at a time, each of them front to back.

    The shards are shuffled and laid end to end, and this line is cut into ``window`` equal pieces. The epoch takes the
    first image of each piece, then the second of each, and so on. As processes take turns, each reads the pieces that
    are its own, where their number divides ``window``; with another number a piece is read by several.

    So each image comes once in an epoch (as in mmengine's `DefaultSampler`, a few come twice where ``round_up`` fills
    the last turn), and all processes together take the same images in the same step, whatever their number.

    Args:
        dataset: A `mmpretrain_plugin.shards.dataset.ShardedImageNet`.
        shuffle: Whether to do all this; else images come in the order of the data set.
        seed: The seed of the order, the same on all processes; by default one that they agree on.
        round_up: See mmengine's `DefaultSampler`.
        window: The number of pieces.

    Raises:
        UserError: The data set has no shards, or is a part of one, or ``window`` is not positive.
    """

    def __init__(
        self, dataset: Any, shuffle: bool = True, seed: int | None = None, round_up: bool = True, window: int = WINDOW
    ) -> None:
        super().__init__(dataset, shuffle=shuffle, seed=seed, round_up=round_up)
        self.sizes: list[int] | None = getattr(dataset, 'shard_sizes', None)
        self.window = window
        if self.sizes is None or sum(self.sizes) != len(dataset):
            raise UserError(
                f'sampler.type=ShardSampler is for a whole ShardedImageNet, not for {type(dataset).__name__} with '
                f'{len(dataset)} samples: use DefaultSampler.'
            )
        if window < 1:
            raise UserError(f'sampler.window={window} must be a positive number of shards.')

    def __iter__(self) -> Iterator[int]:
        """Yield the indices that this process takes."""
        if not self.shuffle:
            return super().__iter__()  # type: ignore[no-any-return]
        # What fills the last turn are the first images again.
        order = np.resize(self.order(), self.total_size)
        return iter(order[self.rank :: self.world_size].tolist())

    def order(self) -> NDArray[np.int64]:
        """Return the order of the epoch over all processes: int64 [N]."""
        assert self.sizes is not None
        random = np.random.default_rng([self.seed, self.epoch])
        starts = np.cumsum([0, *self.sizes])
        shards = [np.arange(starts[i], starts[i + 1]) for i in random.permutation(len(self.sizes))]
        pieces = np.array_split(np.concatenate(shards), self.window)
        table = np.full((len(pieces[0]), self.window), -1)
        for column, piece in enumerate(pieces):
            table[: len(piece), column] = piece
        return table[table >= 0]
