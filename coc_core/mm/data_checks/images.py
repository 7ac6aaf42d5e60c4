"""Problems of single image files."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from coc_core.mm.data_checks.problems import Problem

# Cameras append data of their own behind an image's end.
_TAIL = 1 << 16


def read_pixels(path: Path) -> NDArray[Any] | Problem:
    """Decode an image to its end: uint8 (or wider) [H, W] or [H, W, C], or the problem that prevents it."""
    try:
        with Image.open(path) as image:
            return np.asarray(image)
    except FileNotFoundError:
        return Problem(str(path), 'does not exist')
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        return Problem(str(path), f'cannot be read as an image ({error}): replace or remove it')


def is_torn(path: str) -> bool:
    """Whether a JPEG or PNG file ends before its image does, by its last bytes alone.

    OpenCV decodes what there is of a torn JPEG and says so on stderr at most: half a gray picture for training.
    """
    try:
        with open(path, 'rb') as file:
            start = file.read(8)
            file.seek(max(0, file.seek(0, 2) - _TAIL))
            tail = file.read()
    except OSError:
        return False
    if start.startswith(b'\xff\xd8'):
        return b'\xff\xd9' not in tail
    return start.startswith(b'\x89PNG') and b'IEND' not in tail


def absent_files(paths: Iterable[Path]) -> list[Path]:
    """Return the files that do not exist, reading each folder once instead of asking for every file."""
    listings: dict[Path, Collection[str]] = {}
    absent = []
    for path in paths:
        if path.parent not in listings:
            folder = path.parent
            listings[folder] = {entry.name for entry in folder.iterdir()} if folder.is_dir() else ()
        if path.name not in listings[path.parent]:
            absent.append(path)
    return absent
