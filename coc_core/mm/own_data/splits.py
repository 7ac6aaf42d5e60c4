"""Holds a part of a user's samples back for validation, the same part every time."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Hashable, Sequence
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
    from sklearn.utils import check_random_state

    # One for all classes: files are often named alike in each, and the same places would hold back one kind alone.
    random = check_random_state(seed)
    places: defaultdict[Label, list[int]] = defaultdict(list)
    for place, label in enumerate(labels):
        places[label].append(place)
    train, val = [], []
    # One by one, for train_test_split(stratify=...) of all of them may leave a rare class without validation.
    for of_class in places.values():
        if len(of_class) == 1:
            train += of_class
            continue
        held_back = max(1, round(share * len(of_class)))
        learned, measured = train_test_split(of_class, test_size=held_back, random_state=random)
        train += learned
        val += measured
    if not val:
        raise UserError(
            f'{what}: {len(labels)} in {len(places)} classes cannot be split into training and validation, which needs '
            'two of one class at least: add some.'
        )
    return sorted(train), sorted(val)


def rarest(samples: Sequence[Collection[Label]]) -> list[Label | None]:
    """Return one class for each sample of several: that which the fewest samples have; None for a sample of none.

    A split by it shares out what is rare, and with that what is common.
    """
    counts = Counter(label for classes in samples for label in set(classes))
    return [min(classes, key=lambda label: (counts[label], str(label)), default=None) for classes in samples]
