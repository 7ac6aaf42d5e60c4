"""Holds a part of a user's samples back for validation, the same part every time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Hashable, Sequence
from math import ceil
from typing import TypeVar

from coc_core.errors import UserError

SHARE = 0.2
SEED = 0

Label = TypeVar('Label', bound=Hashable)


def split(labels: Sequence[Label], what: str, share: float = SHARE, seed: int = SEED) -> tuple[list[int], list[int]]:
    """Return the places of the training and of the validation samples, both in order.

    Each class has its share on both sides. The only sample of a class is for training.

    Args:
        labels: The class of each sample.
        what: What messages call the samples and where they are.
        share: The validation's part.
        seed: Which split.

    Raises:
        UserError: There are not two samples of any class.
    """
    from sklearn.model_selection import train_test_split

    counts = Counter(labels)
    shared = [place for place, label in enumerate(labels) if counts[label] > 1]
    if not shared:
        raise UserError(
            f'{what}: {len(labels)} in {len(counts)} classes cannot be split into training and validation, which needs '
            'two of one class at least: add some.'
        )
    classes = sum(count > 1 for count in counts.values())
    held_back = max(ceil(share * len(shared)), classes)
    train, val = train_test_split(
        shared, test_size=held_back, stratify=[labels[place] for place in shared], random_state=seed
    )
    alone = [place for place, label in enumerate(labels) if counts[label] == 1]
    return sorted([*train, *alone]), sorted(val)


def rarest(samples: Sequence[Collection[Label]]) -> list[Label | None]:
    """Return one class for each sample of several: that which the fewest samples have; None for a sample of none.

    A split by it shares out what is rare, and with that what is common.
    """
    counts = Counter(label for classes in samples for label in set(classes))
    return [min(classes, key=lambda label: (counts[label], str(label)), default=None) for classes in samples]
