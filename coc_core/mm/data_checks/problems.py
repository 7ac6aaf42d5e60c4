"""The type in which all checks report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

Level = Literal['error', 'warning', 'left out']


@dataclass(frozen=True)
class Problem:
    """Something wrong with a data set.

    Attributes:
        place: The file, and where it helps the entry in it.
        what: What is wrong, as the rest of a sentence.
        level: ``error`` is what training must not begin with; ``warning`` what may be meant so; ``left out`` what
            training leaves out by the task's convention.
    """

    place: str
    what: str
    level: Level = 'error'

    def __str__(self) -> str:
        """Return the problem as one sentence."""
        return f'{self.place} {self.what}.'


def repeated(place: str, names: Sequence[str]) -> Iterator[Problem]:
    """Yield the warning about images that a list names more than once, where each counts as often as it is there.

    Args:
        place: The list.
        names: What it names.
    """
    several = [name for name, count in Counter(names).items() if count > 1]
    if several:
        what = f'lists {len(several)} images more than once, first {several[0]}: each is measured as often'
        yield Problem(place, what, 'warning')
