"""How image files become pixels, for whatever reads one: as mmcv does it, and the files that it refuses in words."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

# What decoders raise at a file that they cannot decode; mmcv asserts that OpenCV found an image.
_REFUSALS = (AssertionError, OSError, SyntaxError, ValueError, Image.DecompressionBombError, cv2.error)
# Any marker of a JPEG but those within its compressed data: a stuffed zero, a restart, and fill bytes.
_MARKER = re.compile(rb'\xff[\x01-\xcf\xd8-\xfe]')
_END = b'\xff\xd9'


def decode(path: Path) -> NDArray[Any]:
    """Decode an image as mmcv's LoadImageFromFile does unless a config says otherwise: uint8 [H, W, 3], BGR.

    It is turned by its EXIF orientation, and 16 bits become their upper 8.

    Raises:
        ValueError: OpenCV cannot decode the file.
    """
    pixels: NDArray[Any] | None = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_COLOR)
    if pixels is None:
        raise ValueError('OpenCV cannot decode it')
    return pixels


def decoded(path: Path, load: Callable[[Path], NDArray[Any]]) -> NDArray[Any] | str:
    """Decode a whole image or label map; return the rest of a sentence about one that cannot be decoded.

    Args:
        path: The file.
        load: What decodes it, such as `decode`.

    Raises:
        Exception: ``load`` fails for another reason than the file.
    """
    if is_torn(path):
        return 'cannot be read as an image (it is truncated): replace or remove it'
    try:
        return load(path)
    except FileNotFoundError:
        return 'does not exist'
    except _REFUSALS:
        return _refusal(path)


def _refusal(path: Path) -> str:
    """Return why a file cannot be decoded in the words of Pillow, for OpenCV has none."""
    try:
        with Image.open(path) as image:
            image.load()
            kind = f'{image.format} with pixels of mode {image.mode}'
    except Exception as error:  # Of a damaged file Pillow's formats raise anything.
        return f'cannot be read as an image ({error}): replace or remove it'
    return f'cannot be decoded ({kind}): save it anew, with 8 bits a channel'


def is_torn(path: Path) -> bool:
    """Whether a file is a JPEG without its end marker, which a copy that was broken off leaves.

    OpenCV refuses a file that just ends, of any format; a JPEG whose rest is zeros it may decode to half a picture.
    What stands behind the end marker is a camera's own. A thumbnail's marker is passed over with its EXIF segment.
    """
    try:
        with path.open('rb') as file:
            start = file.read(3)
            if start != b'\xff\xd8\xff':
                return False
            content = start + file.read()
    except OSError:
        return False
    place = 2
    while marker := _MARKER.search(content, place):
        if marker[0] == _END:
            return False
        place = marker.end() + int.from_bytes(content[marker.end() : marker.end() + 2], 'big')
    return True
