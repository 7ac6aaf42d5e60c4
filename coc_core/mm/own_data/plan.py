"""What a user asks for, and what a task makes of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from coc_core.errors import UserError
from coc_core.mm.own_data.fitting import Machine

Writer = Callable[[Path], object]


@dataclass(frozen=True)
class DataRequest:
    """What a user asks for.

    Attributes:
        data: Where the data is, as the user writes it.
        out: The config to be written.
        arch: The variant; None for the task's usual one.
        checkpoint: The file to start from; None for random weights.
        classes: The names of the classes, where the user says them.
        machine: What the training will run on.
    """

    data: Path
    out: Path
    arch: str | None
    checkpoint: str | None
    classes: tuple[str, ...] | None
    machine: Machine

    @property
    def folder(self) -> Path:
        """Where lists and converted data lie, beside the config and named after it."""
        return self.out.with_suffix('')

    def check_data_is(self, kind: str, *, folder: bool) -> None:
        """Check that the data is there, and a folder where the task needs one.

        Raises:
            UserError: It is not.
        """
        if not self.data.exists():
            raise UserError(f'--data {self.data} does not exist: name {kind}.')
        if folder and not self.data.is_dir():
            raise UserError(f'--data {self.data} is a file: name {kind}.')


@dataclass(frozen=True)
class Plan:
    """What is to be written for a request.

    Attributes:
        text: The config.
        summary: What was found, in one line.
        epochs: Its number of epochs.
        example: A file to try the trained model on.
        files: Lists and converted data, and what writes each.
        notes: What a user should know of the data, as sentences.
    """

    text: str
    summary: str
    epochs: int
    example: Path
    files: Mapping[Path, Writer] = field(default_factory=dict)
    notes: Sequence[str] = ()


def lines_writer(lines: Sequence[str]) -> Writer:
    """Return what writes a text file of these lines.

    Raises:
        UserError: A line cannot stand in such a file: names of files may hold anything.
    """
    for line in lines:
        if line != line.strip() or len(line.splitlines()) > 1 or not _is_text(line):
            raise UserError(
                f'The name {line!r} cannot stand in a list of files, which would lose spaces at its ends and breaks '
                'within it: rename the file.'
            )
    text = ''.join(f'{line}\n' for line in lines)
    return lambda path: path.write_text(text, encoding='utf-8')


def _is_text(line: str) -> bool:
    try:
        line.encode()
    except UnicodeEncodeError:
        return False
    return True
