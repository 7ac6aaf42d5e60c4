"""Writes what became of samples: pictures, what stands beside them, and then the table's rows."""

from __future__ import annotations

import os
import warnings
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from coc_core.errors import during
from coc_core.mm.prediction.inputs import Found, Item, Shard
from coc_core.mm.prediction.predictor import Outcome, Predictor
from coc_core.mm.prediction.tables import Table

# With an ending, a file's name may have 255 bytes.
_LONGEST_NAME = 200


class Writer:
    """Writes outcomes below a folder.

    Attributes:
        written: How many samples were written.
        problems: How many could not be predicted.

    Args:
        predictor: What predicted them.
        table: The table.
        found: The files that they are of.
        pictures: Whether to draw pictures.
    """

    def __init__(self, predictor: Predictor, table: Table, found: Found, *, pictures: bool) -> None:
        self._predictor = predictor
        self._table = table
        self._found = found
        self._pictures = pictures
        self.written = 0
        self.problems = 0

    def write(self, outcomes: Iterable[Outcome]) -> list[str]:
        """Write a batch; a row is in the table when all that it names is on the disk.

        Returns:
            The sentences about samples that could not be predicted.

        Raises:
            UserError: Something cannot be written.
        """
        rows, problems = [], []
        for outcome in outcomes:
            if outcome.problem is None:
                rows.append(self._row(outcome))
            else:
                problems.append(outcome.problem)
        self._table.add(rows)
        self.written += len(rows)
        self.problems += len(problems)
        return problems

    def _row(self, outcome: Outcome) -> dict[str, Any]:
        predictions, out = self._predictor.predictions, self._table.path.parent
        name = self._name(outcome.item)
        row = {**self._predictor.row(outcome), **predictions.write_beside(outcome.sample, out, name)}
        if self._pictures:
            row['picture'] = f'pictures/{name}{predictions.picture_ending}'
            with warnings.catch_warnings(), during(f'drawing the picture of {outcome.item}'):
                # The packages' visualizers warn of boxes that reach out of their image.
                warnings.simplefilter('ignore', UserWarning)
                predictions.draw(self._predictor.files.shown(outcome.item), outcome.sample, out / row['picture'])
        return row

    def _name(self, item: Item) -> str:
        """Return a sample's path below a folder of its own kind: no two samples have one."""
        name = self._found.name(item.path)
        folder, last = os.path.split(name)
        encoded = os.fsencode(last)
        if len(encoded) > _LONGEST_NAME:
            last = f'{encoded[:_LONGEST_NAME].decode(errors="ignore")}-{zlib.crc32(encoded):08x}'
        return os.path.join(folder, last) + ('' if item.place is None else f'/{item.place:06d}')

    def finish(self, shard: Shard, *, as_csv: bool) -> list[Path]:
        """Close the table, write what is made of the whole of it, and return all files."""
        self._table.close()
        files = [self._table.write_csv()] if as_csv else []
        made = self._predictor.predictions.write_at_end(self._table.rows(), self._table.stem, shard)
        return [self._table.path, *files, *made]
