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
from coc_core.mm.prediction.predictor import FAILURES, Outcome, Predictor
from coc_core.mm.prediction.tables import Table

# With an ending, a file's name may have 255 bytes.
_LONGEST_NAME = 200


class Writer:
    """Writes outcomes below a folder.

    Attributes:
        written: How many samples were written.
        problems: How many could not be predicted.
        undrawn: Of how many that were predicted no picture could be drawn.

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
        self._rows: list[dict[str, Any]] = []
        self._first_error: Exception | None = None
        self._drawn = bool(table.done)
        self.written = 0
        self.problems = 0
        self.undrawn = 0

    def write(self, outcomes: Iterable[Outcome]) -> list[str]:
        """Write a batch; a row is in the table when all that it names is on the disk.

        Returns:
            The sentences about samples that could not be predicted, or not drawn: these are in the table without a
            picture.

        Raises:
            UserError: Something cannot be written.
        """
        problems = []
        for outcome in outcomes:
            if outcome.problem is not None:
                problems.append(outcome.problem)
                self.problems += 1
                continue
            row, error = self._row(outcome)
            self._rows.append(row)
            self.written += 1
            if error is not None:
                reason = ' '.join(f'{type(error).__name__}: {error}'.split())
                problems.append(f'{outcome.item} is predicted, but its picture cannot be drawn ({reason}).')
                self.undrawn += 1
                self._first_error = self._first_error or error
        # What has not drawn any picture is to blame itself, and its rows are to be written again.
        if self._drawn or not self.undrawn or self.undrawn >= FAILURES:
            self._add()
        return problems

    def _add(self) -> None:
        if self._first_error is not None and not self._drawn:
            with during('drawing the first picture'):
                raise self._first_error
        self._table.add(self._rows)
        self._rows.clear()

    def _row(self, outcome: Outcome) -> tuple[dict[str, Any], Exception | None]:
        """Return the row of a sample, and why its picture could not be drawn."""
        predictions, out = self._predictor.predictions, self._table.path.parent
        name = self._name(outcome.item)
        row = {**self._predictor.row(outcome), **predictions.write_beside(outcome.sample, out, name)}
        if not self._pictures:
            return row, None
        picture = f'pictures/{name}{predictions.picture_ending}'
        try:
            with warnings.catch_warnings():
                # The packages' visualizers warn of boxes that reach out of their image.
                warnings.simplefilter('ignore', UserWarning)
                predictions.draw(self._predictor.files.shown(outcome.item), outcome.sample, out / picture)
        except Exception as error:
            # What the system refuses for one picture it refuses for all, and names by a number.
            if getattr(error.__cause__, 'errno', None):
                raise
            return {**row, 'picture': None}, error
        self._drawn = True
        return {**row, 'picture': picture}, None

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
        self._add()
        self._table.close()
        files = [self._table.write_csv()] if as_csv else []
        made = self._predictor.predictions.write_at_end(self._table.rows(), self._table.stem, shard)
        return [self._table.path, *files, *made]
