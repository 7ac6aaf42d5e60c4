"""Images and films from files and into files: bounded when they are read, complete or absent when they are written."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageSequence, UnidentifiedImageError

from coc_core.errors import UserError
from coc_core.files import is_hidden, replacing
from coc_core.visualization.decoding import decode, decoded

# What OpenCV decodes to 8 bits, as far as Pillow knows its size before.
IMAGE_SUFFIXES = (
    '.png', '.apng', '.jpg', '.jpeg', '.jpe', '.jfif', '.mpo', '.bmp', '.webp', '.tif', '.tiff', '.gif', '.avif',
    '.avifs', '.jp2', '.j2k', '.j2c', '.jpc', '.jpf', '.jpx', '.ppm', '.pgm', '.pbm', '.pnm', '.ras',
)  # fmt: skip
FILM_SUFFIXES = ('.gif', '.mp4', '.avi', '.mov', '.mkv', '.webm')
MAX_PIXELS = 40_000_000
_GIF_COLORS = 128
_PALETTE_FRAMES = 8


def list_images(folder: Path, leave_out: Path | None = None) -> list[Path]:
    """Return the image files of a folder and its subfolders, hidden ones passed over, in order of their names.

    Args:
        folder: The folder.
        leave_out: A folder that is passed over, for what is written may stand below what is read.

    Raises:
        UserError: There are none.
    """
    root = folder.resolve()
    own = leave_out.resolve() if leave_out else None
    own = own if own is not None and root in own.parents else None
    found = []
    for path in folder.rglob('*'):
        name = path.relative_to(folder)
        is_own = own is not None and own in (root / name).parents
        if path.suffix.lower() in IMAGE_SUFFIXES and not is_hidden(str(name)) and not is_own and path.is_file():
            found.append(path)
    found.sort()
    if not found:
        raise UserError(f'The folder {folder} holds no images ({", ".join(IMAGE_SUFFIXES)}).')
    return found


def read_image(path: Path, max_pixels: int = MAX_PIXELS, load: Callable[[Path], NDArray[Any]] = decode) -> NDArray[Any]:
    """Read an image in RGB: uint8 [H, W, 3].

    Args:
        path: The file.
        max_pixels: Images with more are refused before they are decoded.
        load: What decodes the file, to BGR or gray: `decode`, or what a config's pipeline begins with.

    Raises:
        UserError: The file is not there, is no image, is damaged or too large, or has other pixels than 8 bits can
            show; the sentence is for the user.
    """
    with _opened(path, max_pixels):
        pixels = decoded(path, load)
    if isinstance(pixels, str):
        raise UserError(f'The image {path} {pixels}.')
    shown = pixels.astype(np.uint8)
    if not np.array_equal(shown, pixels) or shown.shape[2:] not in ((), (1,), (3,)):
        raise UserError(
            f'The image {path} is loaded as {pixels.dtype} of shape {list(pixels.shape)}, which is no picture of 8-bit '
            "colors: set color_type='color' where the config loads it."
        )
    return np.ascontiguousarray(np.broadcast_to(np.atleast_3d(shown), (*shown.shape[:2], 3))[..., ::-1])


def read_labels(path: Path, max_pixels: int = MAX_PIXELS) -> NDArray[Any]:
    """Read a label map, one number for each pixel, as mmseg's LoadAnnotations does: integers [H, W], the file's own.

    Raises:
        UserError: As `read_image`, or the file has several channels.
    """
    with _opened(path, max_pixels) as image:
        labels = np.asarray(image)
    if labels.ndim != 2:
        raise UserError(
            f'The label map {path} has {labels.shape[2]} channels: it must have one, a class in each pixel.'
        )
    return labels


@contextmanager
def _opened(path: Path, max_pixels: int) -> Iterator[Image.Image]:
    """Open an image that may be decoded safely; what goes wrong then is told in one sentence."""
    if path.is_dir():
        raise UserError(f'{path} is a folder, where an image is expected.')
    try:
        with warnings.catch_warnings():
            # Pillow warns of sizes that it still opens, before ours are checked.
            warnings.simplefilter('ignore', Image.DecompressionBombWarning)
            with Image.open(path) as image:
                _check_size(path, image.width, image.height, max_pixels)
                yield image
    except FileNotFoundError:
        raise UserError(f'The image {path} does not exist.') from None
    except Image.DecompressionBombError:
        raise UserError(f'The image {path} has too many pixels to be opened safely: make it smaller.') from None
    except UnidentifiedImageError:
        raise UserError(f'The file {path} is not an image that can be read: give a PNG or JPEG file.') from None
    except UserError:
        raise
    except (OSError, RuntimeError, SyntaxError, ValueError) as error:
        raise UserError(f'The image {path} is damaged ({error}): replace it.') from None


def _check_size(path: Path, width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise UserError(
            f'The image {path} has {width}x{height} pixels, more than {max_pixels / 1e6:g} million: make it smaller.'
        )


def is_film(path: Path) -> bool:
    """Whether a file is a video, or a GIF of more than one frame.

    Raises:
        UserError: A GIF is not there or cannot be read.
    """
    if path.suffix.lower() != '.gif':
        return path.suffix.lower() in FILM_SUFFIXES
    with _opened(path, MAX_PIXELS) as film:
        return getattr(film, 'is_animated', False)


def read_frames(path: Path, max_pixels: int = MAX_PIXELS) -> Iterator[NDArray[Any]]:
    """Yield the frames of a GIF or a video one after the other, uint8 [H, W, 3], RGB.

    Raises:
        UserError: The file is not there, cannot be read, or its frames are too large.
    """
    if path.suffix.lower() == '.gif':
        with _opened(path, max_pixels) as film:
            for frame in ImageSequence.Iterator(film):
                yield np.asarray(frame.convert('RGB'))
        return
    if not path.is_file():
        raise UserError(f'The video {path} does not exist.')
    capture = cv2.VideoCapture(str(path))
    try:
        size = [int(capture.get(key)) for key in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT)]
        read, frame = capture.read()
        if not read:
            raise UserError(f'The video {path} cannot be read: it is damaged, or of a kind that OpenCV does not know.')
        _check_size(path, size[0], size[1], max_pixels)
        while read:
            yield np.ascontiguousarray(frame[..., ::-1])
            read, frame = capture.read()
    finally:
        capture.release()


def frame_rate(path: Path) -> float:
    """Return the frames per second of a GIF or a video, 10 where the file does not say.

    Raises:
        UserError: A GIF is not there or cannot be read.
    """
    if path.suffix.lower() == '.gif':
        with _opened(path, MAX_PIXELS) as film:
            milliseconds = film.info.get('duration', 0)
        return 1000 / milliseconds if milliseconds else 10.0
    capture = cv2.VideoCapture(str(path))
    rate = capture.get(cv2.CAP_PROP_FPS)
    capture.release()
    return float(rate) if 0 < rate <= 240 else 10.0


def write_image(path: Path, image: NDArray[Any]) -> None:
    """Write an image, uint8 [H, W, 3], RGB, in the format of the file's suffix.

    Raises:
        UserError: The file cannot be written.
    """
    with replacing(path) as beside:
        Image.fromarray(image).save(beside)


def write_film(
    path: Path, frames: Sequence[NDArray[Any]] | Iterator[NDArray[Any]], rate: float, hold: float = 0.0
) -> None:
    """Write frames, each uint8 [H, W, 3] of one size, as a GIF or an MP4 by the file's suffix.

    Args:
        path: The file.
        frames: At least one frame, taken one after the other.
        rate: Frames per second.
        hold: Seconds for which the last frame of a GIF stays.

    Raises:
        UserError: There are no frames, or the file cannot be written.
    """
    write = _write_gif if path.suffix.lower() == '.gif' else _write_video
    with replacing(path) as beside:
        write(beside, iter(frames), rate, hold)


def _write_gif(path: Path, frames: Iterator[NDArray[Any]], rate: float, hold: float) -> None:
    first = list(islice(frames, _PALETTE_FRAMES))
    if not first:
        raise UserError('There are no frames to make a film of.')
    # One palette for all, so that what does not move takes no space: by the first frames, which the others resemble.
    palette = Image.fromarray(np.concatenate(first)).quantize(
        _GIF_COLORS, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE
    )
    pictures = [
        Image.fromarray(frame).quantize(palette=palette, dither=Image.Dither.NONE) for frame in chain(first, frames)
    ]
    durations = [round(1000 / rate)] * len(pictures)
    durations[-1] += round(1000 * hold)
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=durations, loop=0, optimize=True)


def _write_video(path: Path, frames: Iterator[NDArray[Any]], rate: float, hold: float) -> None:
    writer = None
    try:
        for frame in frames:
            height, width = (side - side % 2 for side in frame.shape[:2])
            if writer is None:
                # Of the codecs in OpenCV's wheels, the one that plays in browsers too.
                codec = cv2.VideoWriter.fourcc(*'vp09')
                writer = cv2.VideoWriter(str(path), codec, rate, (width, height))
                if not writer.isOpened():
                    raise OSError('OpenCV has no VP9 here')
            writer.write(np.ascontiguousarray(frame[:height, :width, ::-1]))
    finally:
        if writer is not None:
            writer.release()
    if writer is None:
        raise UserError('There are no frames to make a film of.')
