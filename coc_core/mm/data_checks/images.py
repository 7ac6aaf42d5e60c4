"""Problems of single image files."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from PIL import ExifTags, Image

from coc_core.mm.data_checks.problems import Problem
from coc_core.mm.loading import ImageLoader
from coc_core.visualization.decoding import decoded

# OpenCV does not turn AVIF.
_TURNED_FORMATS = ('JPEG', 'MPO', 'PNG', 'WEBP', 'TIFF')


def read_pixels(path: Path, load: Callable[[Path], NDArray[Any]]) -> NDArray[Any] | Problem:
    """Decode an image or label map to its end, or return the problem that prevents it.

    Args:
        path: The file.
        load: What training reads it with: an `ImageLoader` or a ``LabelMapLoader``.

    Raises:
        Exception: ``load`` fails for another reason than the file.
    """
    pixels = decoded(path, load)
    return Problem(str(path), pixels) if isinstance(pixels, str) else pixels


def orientation(path: Path, loader: ImageLoader) -> int:
    """Return the EXIF orientation, 2 to 8, by which a readable image is turned when it is loaded, or 1."""
    if not loader.turns:
        return 1
    try:
        with Image.open(path) as image:
            found: Any = image.getexif().get(ExifTags.Base.Orientation) if image.format in _TURNED_FORMATS else 1
    except Exception:  # What Pillow cannot read has no orientation that OpenCV would follow.
        return 1
    return int(found) if found in range(2, 9) else 1


def size_problems(
    image: Path, size: tuple[int, ...], loader: ImageLoader, what: str, difference: Problem | None
) -> list[Problem]:
    """Return what is wrong with the size of an image as it is loaded, and what its size cannot tell.

    Args:
        image: The file.
        size: Its height and width as it is loaded.
        loader: What loaded it.
        what: What belongs to it, such as annotations.
        difference: That these are of another size, where they are.
    """
    turned = orientation(image, loader)
    note = (
        f'EXIF orientation {turned}, which turns it when it is loaded: its {what} must be of the turned image, or '
        "LoadImageFromFile needs color_type='color_ignore_orientation'"
    )
    if difference is not None:
        return [difference if turned == 1 else replace(difference, what=f'{difference.what} (the image has {note})')]
    unseen = turned in (2, 3, 4) or (turned > 4 and size[0] == size[1])
    return [Problem(str(image), f'has {note}', 'warning')] if unseen else []


def annotated_size_difference(actual: tuple[int, ...], annotated: tuple[Any, ...]) -> str | None:
    """Return the rest of a sentence about an image of another size than its annotations, sizes as (rows, columns)."""
    if actual == annotated:
        return None
    return f'has {actual[1]}x{actual[0]} pixels, its annotations are for {annotated[1]}x{annotated[0]}'


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
