"""The table of predictions: whole lines are appended, and what a kill tears off is dropped at the next start."""

from __future__ import annotations

import csv
import fcntl
import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from coc_core.errors import UserError
from coc_core.files import replacing, write_bytes
from coc_core.mm.prediction.inputs import Shard, sample_key

STEM = 'predictions'
_RECORD = '.run.json'
# Seconds after which what was appended is brought to the disk.
_FLUSHED_EVERY = 1.0


class Table:
    """JSON lines, one for each sample, beside a record of what made them.

    Each process has a table of its own (``predictions-00003-of-00016.jsonl``), which no other writes.

    Attributes:
        path: The file.
        stem: The file without its ending: what belongs to it is named after it.
        done: The keys of the samples that are in it.

    Args:
        folder: The folder of all predictions; it is made.
        shard: Which part of the predictions this is.
        record: What makes the predictions: its values must be those of an earlier run that this one goes on with.
        names: What messages call a value of the record, where it is no value that its user has written.
        overwrite: Whether to begin anew.

    Raises:
        UserError: Another process writes this table, or it was made by something else.
    """

    def __init__(
        self, folder: Path, shard: Shard, record: Mapping[str, Any], names: Mapping[str, str], *, overwrite: bool
    ) -> None:
        self.stem = folder / (STEM if shard.count == 1 else f'{STEM}-{shard.index:05d}-of-{shard.count:05d}')
        self.path = self._beside('.jsonl')
        self._clear_others(folder, shard, overwrite=overwrite)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open('a+b')
        except OSError as error:
            raise UserError(f'{self.path} cannot be written: {error.strerror}.') from error
        self._lock()
        if overwrite:
            self._file.truncate(0)
            for path in self._belonging():
                path.unlink()
        self._check_record(record, names)
        self.done = set(self._recovered())
        self._flushed = time.monotonic()

    def _beside(self, ending: str) -> Path:
        return self.stem.with_name(f'{self.stem.name}{ending}')

    def _belonging(self) -> list[Path]:
        return [path for path in self.stem.parent.glob(f'{self.stem.name}.*') if path != self.path]

    def _clear_others(self, folder: Path, shard: Shard, *, overwrite: bool) -> None:
        """Remove tables of another number of shards where they are to be overwritten, or refuse."""
        for path in folder.glob(f'{STEM}*{_RECORD}'):
            number = path.name.removesuffix(_RECORD).rpartition('-of-')[2]
            count = int(number) if number.isdigit() else 1
            if count == shard.count:
                continue
            if not overwrite:
                raise UserError(
                    f'{folder} holds predictions of {count} shard(s), but --num-shards is {shard.count}: go on with '
                    f'{count}, choose another --out, or begin again with --overwrite.'
                )
            for other in folder.glob(f'{path.name.removesuffix(_RECORD)}.*'):
                other.unlink(missing_ok=True)

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f'{self.path} is being written by another process: wait for it, choose another --out, or give each '
                'process its own --shard of --num-shards.'
            ) from None
        except OSError:
            # Some network file systems know no locks.
            return

    def _check_record(self, record: Mapping[str, Any], names: Mapping[str, str]) -> None:
        """Compare what makes the predictions with what made those that are there, and record it."""
        path = self._beside(_RECORD)
        if not path.is_file():
            if self.path.stat().st_size:
                raise UserError(f'{self.path} has no {path.name} that says what made it: begin again with --overwrite.')
            write_bytes(path, json.dumps({**record, 'names': dict(names)}, indent=2).encode())
            return
        earlier = json.loads(path.read_text())
        shown = earlier.pop('names', {})
        told = [
            f'{key} was {shown.get(key, earlier.get(key))} and is '
            f'{"another of that name" if key in names and shown.get(key) == names[key] else names.get(key, value)}'
            for key, value in record.items()
            if earlier.get(key) != value
        ]
        if told:
            raise UserError(
                f'{self.path} was made by something else ({"; ".join(told)}): go on with what made it, choose another '
                '--out, or begin again with --overwrite.'
            )

    def _recovered(self) -> Iterator[str]:
        """Yield the keys of the rows; cut off what follows the last whole one."""
        self._file.seek(0)
        end = 0
        for line in self._file:
            try:
                row = json.loads(line)
                key = sample_key(row['path'], row['frame'])
            except (ValueError, KeyError, TypeError):
                break
            if not line.endswith(b'\n'):
                break
            end += len(line)
            yield key
        self._file.truncate(end)

    def add(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Append rows, whole: after a kill they are there or not.

        Raises:
            UserError: They cannot be written.
        """
        text = ''.join(f'{json.dumps(row, ensure_ascii=False)}\n' for row in rows)
        try:
            # What a file's name has that is no text becomes an escape of JSON.
            self._file.write(text.encode(errors='backslashreplace'))
            self._file.flush()
            if time.monotonic() - self._flushed > _FLUSHED_EVERY:
                os.fsync(self._file.fileno())
                self._flushed = time.monotonic()
        except OSError as error:
            raise UserError(f'{self.path} cannot be written: {error.strerror}.') from error

    def close(self) -> None:
        """Bring everything to the disk."""
        os.fsync(self._file.fileno())
        self._file.close()

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield the rows of the closed table."""
        with self.path.open('rb') as file:
            for line in file:
                yield json.loads(line)

    def write_csv(self) -> Path:
        """Write the closed table as CSV, lists as JSON text, and return the file.

        Raises:
            UserError: It cannot be written.
        """
        path = self._beside('.csv')
        with replacing(path) as beside, beside.open('w', newline='', errors='surrogateescape') as file:
            _write_csv(file, self.rows())
        return path


def _write_csv(file: IO[str], rows: Iterable[Mapping[str, Any]]) -> None:
    writer = None
    for row in rows:
        if writer is None:
            writer = csv.DictWriter(file, list(row))
            writer.writeheader()
        writer.writerow({key: _cell(value) for key, value in row.items()})


def _cell(value: Any) -> Any:
    """Return a value as a cell of CSV has it; masks would burst it, and are in the JSON lines."""
    if isinstance(value, list):
        value = [{key: part for key, part in entry.items() if key != 'mask'} for entry in value]
    return json.dumps(value, ensure_ascii=False) if isinstance(value, (list, dict)) else value
