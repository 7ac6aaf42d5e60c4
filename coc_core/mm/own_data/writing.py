"""Writes what belongs together: all of it, or nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from coc_core.errors import UserError
from coc_core.files import replacing, write_bytes
from coc_core.mm.own_data.plan import Writer


def check_absent(files: Mapping[Path, Writer]) -> None:
    """Check that nothing would be overwritten.

    Raises:
        UserError: One of the files is there.
    """
    for path in files:
        if path.exists():
            raise UserError(f'{path} exists already: name another config with --out, or replace it with --overwrite.')


@contextmanager
def written(files: Mapping[Path, Writer]) -> Iterator[None]:
    """Write files for the block that follows; where that or the writing fails, everything is as it was.

    Raises:
        UserError: A file cannot be written.
    """
    earlier = {path: path.read_bytes() if path.is_file() else None for path in files}
    folders = [folder for path in files for folder in path.parents if not folder.exists()]
    try:
        for path, write in files.items():
            with replacing(path) as beside:
                write(beside)
        yield
    except BaseException:
        for path, content in earlier.items():
            if content is None:
                path.unlink(missing_ok=True)
            else:
                write_bytes(path, content)
        # The innermost first; one that holds something else stays.
        for folder in sorted(set(folders), key=lambda folder: -len(folder.parts)):
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
        raise
