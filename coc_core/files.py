"""The one way in which files are written, which are hidden, and where the project's own files are."""

from __future__ import annotations

import errno
import os
import os.path as osp
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from coc_core.errors import UserError

_UNFINISHED = '.unfinished-'


def is_hidden(path: str) -> bool:
    """Whether a name, or one in a relative path, is hidden: of a dot file, or of what macOS adds to its archives."""
    return any(name.startswith('.') or name == '__MACOSX' for name in path.split(os.sep))


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a place beside ``path`` to write a file to; flush it to the disk and move it to ``path`` at the end.

    Where anything fails, or SIGTERM ends the process, ``path`` is what it was before. The place has the same file name,
    for what chooses a format by its ending.

    Args:
        path: The file; missing folders are made.

    Raises:
        UserError: The file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with ending_in_order(), tempfile.TemporaryDirectory(dir=path.parent, prefix=_UNFINISHED) as folder:
            beside = Path(folder) / path.name
            yield beside
            _flush(beside)
            os.replace(beside, path)
            _flush(path.parent)
    except OSError as error:
        # Within such a place a package may have written by this same way.
        told = path.parent.parent / path.name if path.parent.name.startswith(_UNFINISHED) else path
        raise UserError(f'{told} cannot be written: {_reason(path, error)}.') from error


@contextmanager
def ending_in_order() -> Iterator[None]:
    """Within it SIGTERM raises SystemExit, so that what was begun is cleared away, unless somebody listens for it."""
    ours = threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    if not ours:
        yield
        return
    process = os.getpid()

    def end(number: int, frame: Any) -> None:
        if os.getpid() == process:
            sys.exit(128 + number)
        # A process that was forked meanwhile ends as it would have.
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _reason(path: Path, error: OSError) -> str:
    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
        return error.strerror or str(error)
    return f'{error.strerror} ({megabytes(shutil.disk_usage(path.parent).free)} are free)'


def megabytes(size: int) -> str:
    """Return a number of bytes as a reader says it."""
    return f'{size / 1e6:,.{1 if size >= 1e6 else 3}f} MB'


def _flush(path: Path) -> None:
    """Have the system bring a file, or the names in a folder, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_bytes(path: Path, content: bytes | memoryview) -> None:
    """Write a whole file.

    Raises:
        UserError: The file cannot be written.
    """
    with replacing(path) as beside:
        beside.write_bytes(content)


def check_out(folder: Path) -> None:
    """Raise UserError where what ``--out`` names cannot become a folder."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f'--out {folder} is a file: name a folder.')


def check_writable(folder: Path, size: int = 1_000_000) -> None:
    """Check, by writing and removing it, that a folder takes a file.

    Args:
        folder: The folder; it is made.
        size: Number of bytes of the file.

    Raises:
        UserError: It cannot be written.
    """
    path = folder / '.writable'
    write_bytes(path, bytes(size))
    path.unlink(missing_ok=True)


def remove_unfinished(folder: Path) -> None:
    """Remove what a kill in the middle of `replacing` left anywhere below a folder."""
    for rest in folder.rglob(f'{_UNFINISHED}*'):
        shutil.rmtree(rest, ignore_errors=True)


def project_folder() -> Path:
    """Return the folder that holds ``configs/`` and ``model-index.yml``: the checkout, or a wheel's copy of them."""
    package = Path(__file__).parent
    return package.parent if (package.parent / 'model-index.yml').is_file() else package / '.mim'


def folder_below(root: str, path: str) -> str:
    """Return the folder of a file within a root; of one elsewhere all folders above it."""
    folder = osp.dirname(osp.abspath(path))
    below = osp.relpath(folder, osp.abspath(root)) if root else osp.pardir
    return folder.lstrip(osp.sep) if below.startswith(osp.pardir) else osp.normpath(below)
