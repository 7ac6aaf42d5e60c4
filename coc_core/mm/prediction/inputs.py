"""What is predicted: the files that the command line names, and the samples that are in them."""

from __future__ import annotations

import glob
import os
import zlib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from coc_core.errors import UserError
from coc_core.files import is_hidden


@dataclass(frozen=True)
class Item:
    """One sample.

    Attributes:
        path: Its file, absolute.
        place: Which sample of a file of several: the frame of a film, the cloud of an array; None: the file is one.
        content: What was read of such a file already.
    """

    path: str
    place: int | None = None
    content: NDArray[Any] | None = field(default=None, repr=False, compare=False)

    @property
    def key(self) -> str:
        """What tells it from every other sample."""
        return sample_key(self.path, self.place)

    def __str__(self) -> str:
        return self.path if self.place is None else f'{self.path}, sample {self.place},'


def sample_key(path: str, place: int | None) -> str:
    """Return what tells a sample from every other: no path has a zero in it."""
    return path if place is None else f'{path}\0{place}'


class Files(Protocol):
    """The kinds of files that a task reads."""

    noun: str
    endings: tuple[str, ...]

    def has_several(self, path: Path) -> bool:
        """Whether a file has several samples; otherwise it is one."""

    def count(self, path: Path) -> int:
        """Return about how many samples a file of several has."""

    def contents(self, path: Path) -> Iterator[NDArray[Any]]:
        """Yield the samples of a file of several one after the other."""


@dataclass
class Found:
    """The files that the command line names.

    Attributes:
        root: The folder that all of them are in, absolute.
        paths: The files, absolute, each once.
        passed_over: How many files in folders are of other kinds, by their endings.
    """

    root: str
    paths: list[str]
    passed_over: Counter[str] = field(default_factory=Counter)

    def name(self, path: str) -> str:
        """Return a file's path below the root."""
        return path[len(self.root) :].lstrip(os.sep)


def find_files(inputs: Sequence[str], files: Files, *, leave_out: Path) -> Found:
    """Return the files of names, folders and patterns, those of a folder in order of their names.

    Paths stay strings: of a million, objects would take the memory of gigabytes.

    Args:
        inputs: What the command line names.
        files: What is looked for in folders; files that are named themselves may have any ending.
        leave_out: A folder that is passed over, for what is written may stand below what is read.

    Raises:
        UserError: A name or pattern stands for nothing, a folder cannot be read, or has no such files.
    """
    found: dict[str, None] = {}
    roots, others = [], Counter[str]()
    for name in inputs:
        expanded = os.path.expanduser(name)
        is_pattern = not os.path.exists(expanded) and glob.has_magic(expanded)
        matches = sorted(glob.iglob(expanded, recursive=True)) if is_pattern else [expanded]
        if not matches:
            raise UserError(f'The pattern {name} matches no file.')
        roots.append(_root_of(expanded, is_pattern=is_pattern))
        before = len(found)
        for match in matches:
            path = os.path.abspath(match)
            if os.path.isdir(path):
                found.update(dict.fromkeys(_walk(path, files.endings, os.path.abspath(leave_out), others)))
            elif os.path.exists(path):
                found[path] = None
            else:
                raise UserError(f'The input {name} does not exist.')
        if len(found) == before and os.path.isdir(expanded):
            raise UserError(f'The folder {name} holds no {files.noun} ({", ".join(files.endings)}).')
    return Found(os.path.commonpath(roots), list(found), others)


def _root_of(name: str, *, is_pattern: bool) -> str:
    """Return the folder of an input that does not depend on what is in it."""
    path = os.path.abspath(name)
    while is_pattern and glob.has_magic(path):
        path = os.path.dirname(path)
    return path if os.path.isdir(path) else os.path.dirname(path)


def _walk(folder: str, endings: tuple[str, ...], leave_out: str, others: Counter[str]) -> Iterator[str]:
    """Yield the files below a folder that have one of the endings, hidden ones passed over; count the others."""

    def refuse(error: OSError) -> None:
        raise UserError(f'The folder {error.filename} cannot be read: {error.strerror}.') from error

    linked: set[str] = set()
    for place, folders, names in os.walk(folder, onerror=refuse, followlinks=True):
        folders[:] = sorted(
            name
            for name in folders
            if not is_hidden(name) and os.path.join(place, name) != leave_out and _is_new(place, name, linked)
        )
        for name in sorted(names):
            if is_hidden(name):
                continue
            if name.lower().endswith(endings):
                yield os.path.join(place, name)
            else:
                others[os.path.splitext(name)[1].lower() or name] += 1


def _is_new(place: str, name: str, linked: set[str]) -> bool:
    """Whether a folder is no link, or one that leads to where no link has led yet: links may go in circles."""
    path = os.path.join(place, name)
    if not os.path.islink(path):
        return True
    target = os.path.realpath(path)
    if target in linked or place.startswith(target):
        return False
    linked.add(target)
    return True


@dataclass(frozen=True)
class Shard:
    """Which samples this process predicts: one of ``count`` parts, which together have each sample once.

    A sample's part follows from its file's name below the root, so that files may be added later, and from its place in
    its file, so that several processes share a film.
    """

    index: int = 0
    count: int = 1

    def has(self, name: str, place: int | None) -> bool:
        """Whether a sample is in this part, by its file's path below the root."""
        return (zlib.crc32(os.fsencode(name)) + (place or 0)) % self.count == self.index


def items_of(
    found: Found,
    files: Files,
    *,
    shard: Shard,
    done: Collection[str],
    every: int,
    tell: Callable[[Item, str], None],
) -> Iterator[Item]:
    """Yield the samples that this process is to predict.

    Args:
        found: The files.
        files: What reads those with several samples.
        shard: This process's part.
        done: The keys of samples that are predicted already.
        every: Of a file of several samples, each ``every``-th is taken.
        tell: Called with each file that cannot be read, and a sentence about it.
    """
    for path in found.paths:
        name = found.name(path)
        try:
            if not files.has_several(Path(path)):
                if shard.has(name, None) and path not in done:
                    yield Item(path)
                continue
            for place, content in enumerate(files.contents(Path(path))):
                if place % every == 0 and shard.has(name, place // every) and sample_key(path, place) not in done:
                    yield Item(path, place, content)
        except UserError as error:
            tell(Item(path), str(error))


def expected_count(found: Found, files: Files, *, shard: Shard, every: int) -> int:
    """Return about how many samples this process is to predict, those that are done already included."""
    total = 0.0
    for path in found.paths:
        try:
            if files.has_several(Path(path)):
                total += files.count(Path(path)) / every / shard.count
            else:
                total += shard.has(found.name(path), None)
        except UserError:
            continue
    return round(total)


def in_batches(items: Iterable[Item], size: int, kept: Callable[[list[Item]], object]) -> Iterator[list[Item]]:
    """Yield lists of ``size`` items, the last one shorter; each is handed to ``kept`` before."""
    batch: list[Item] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            kept(batch)
            yield batch
            batch = []
    if batch:
        kept(batch)
        yield batch
