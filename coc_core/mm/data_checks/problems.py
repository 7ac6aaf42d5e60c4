"""The type in which all checks report."""

from __future__ import annotations

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
