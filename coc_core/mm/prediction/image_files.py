"""Images and films as what is predicted, decoded as the config's own pipeline does it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from coc_core.errors import UserError
from coc_core.mm.data_checks.images import read_pixels
from coc_core.mm.data_checks.problems import Problem
from coc_core.mm.loading import loaders_of
from coc_core.mm.prediction.inputs import Item
from coc_core.visualization.decoding import is_torn
from coc_core.visualization.files import FILM_SUFFIXES, IMAGE_SUFFIXES, is_film, read_frames


class ImageFiles:
    """Reads images by the pipeline's own step, and films frame by frame.

    Attributes:
        noun: What messages call the files.
        endings: Endings of what is taken from a folder.
        file_step: The pipeline's step that reads a file, which frames do without; None where it has no known one.

    Args:
        transforms: The pipeline's steps, built.
    """

    noun = 'images'
    endings: tuple[str, ...] = tuple(dict.fromkeys((*IMAGE_SUFFIXES, *FILM_SUFFIXES)))

    def __init__(self, transforms: list[Any]) -> None:
        self._loader, _ = loaders_of(transforms)
        self.file_step = self._loader.transform

    def has_several(self, path: Path) -> bool:
        """Whether a file is a film.

        Raises:
            UserError: A GIF cannot be read.
        """
        return is_film(path)

    def count(self, path: Path) -> int:
        """Return the number of frames that a film says it has."""
        if path.suffix.lower() == '.gif':
            with Image.open(path) as film:
                return int(getattr(film, 'n_frames', 1))
        capture = cv2.VideoCapture(str(path))
        frames = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        capture.release()
        return max(frames, 1)

    def contents(self, path: Path) -> Iterator[NDArray[Any]]:
        """Yield the frames of a film, uint8 [H, W, 3], RGB.

        Raises:
            UserError: It cannot be read.
        """
        return read_frames(path)

    def start(self, item: Item) -> dict[str, Any]:
        """Return what the pipeline starts with, as a data set of the task would give it.

        Raises:
            UserError: The file is torn, or the pipeline takes no frames.
        """
        # mmdet's and mmseg's steps look for the last two.
        data: dict[str, Any] = dict(img_path=item.path, sample_idx=0, img_id=0, seg_fields=[])
        if item.content is None:
            if is_torn(Path(item.path)):
                raise UserError(f'{item.path} cannot be read as an image (it is truncated): replace or remove it.')
            return data
        if self.file_step is None:
            raise UserError(f"{item} is no file of its own, and the config's pipeline has no LoadImageFromFile.")
        pixels = _as_loaded(item.content, self.file_step)
        return {**data, 'img': pixels, 'img_shape': pixels.shape[:2], 'ori_shape': pixels.shape[:2]}

    def columns(self, data: Mapping[str, Any]) -> dict[str, int] | None:
        """Return the size of the image as it was loaded; None while the pipeline has not loaded it."""
        size = data.get('ori_shape')
        return None if size is None else {'height': int(size[0]), 'width': int(size[1])}

    def problem(self, item: Item) -> str | None:
        """Return the sentence of a file that cannot be decoded; None where it can."""
        found = read_pixels(Path(item.path), self._loader) if item.content is None else None
        return str(found) if isinstance(found, Problem) else None

    def shown(self, item: Item) -> NDArray[Any]:
        """Return the image to draw on, uint8 [H, W, 3], RGB."""
        if item.content is not None:
            return item.content
        pixels = self._loader(Path(item.path))
        if pixels.dtype == np.uint16:
            pixels = pixels >> 8
        shown = np.atleast_3d(pixels.clip(0, 255).astype(np.uint8))[..., :3]
        return np.ascontiguousarray(np.broadcast_to(shown[..., ::-1], (*shown.shape[:2], 3)))


def _as_loaded(frame: NDArray[Any], step: Any) -> NDArray[Any]:
    """Return a frame, uint8 [H, W, 3], RGB, as a pipeline's step would have loaded it from a file."""
    pixels: Any = cv2.cvtColor(frame, cv2.COLOR_RGB2BGR)
    if str(getattr(step, 'color_type', 'color')).startswith('grayscale'):
        # Decoders round gray values in another way than what turns colors gray.
        pixels = cv2.imdecode(cv2.imencode('.png', pixels)[1], cv2.IMREAD_GRAYSCALE)
    loaded: NDArray[Any] = pixels.astype(np.float32) if getattr(step, 'to_float32', False) else pixels
    return loaded
