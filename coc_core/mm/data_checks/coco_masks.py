"""What is wrong with a segmentation of a COCO annotation file: pycocotools may crash on it, or draw a wrong mask."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coc_core.mm.data_checks.problems import Level

# pycocotools walks along a polygon's edges in steps of a fifth of a pixel: from a few times this on it takes gigabytes
# of memory, and it crashes the process from 4e8 on.
REACH = 1e6
# The rest of a sentence, and how much it matters.
Finding = tuple[str, Level]
_BLANK: Finding = ('has a segmentation without a pixel in its image', 'warning')
# Three points.
_SHORTEST = 6
# Seven characters of an RLE string hold 35 bits; pycocotools counts in 32.
_LONGEST_COUNT = 7


def is_number(value: Any, low: float = -REACH, high: float = REACH) -> bool:
    """Whether a value of a JSON file is a number in this range, which NaN is not."""
    return type(value) in (int, float) and low <= value <= high


def mask_finding(mask: Any, height: int, width: int, *, training: bool) -> Finding | None:
    """Return what is wrong with a segmentation, or what of it mmdet leaves out.

    Args:
        mask: What the annotation holds, not empty: polygons as ``[[x1, y1, x2, y2, ...], ...]``, or an RLE.
        height: Rows of its image.
        width: Columns of its image.
        training: Whether it is learned, or compared with by pycocotools.
    """
    if isinstance(mask, Mapping):
        return _rle_finding(mask, height, width)
    if not isinstance(mask, list):
        return f'has the segmentation {reprlib.repr(mask)}, which is neither a list of polygons nor an RLE', 'error'
    for polygon in mask:
        if wrong := _polygon_error(polygon):
            return f'has {wrong}: write [[x1, y1, x2, y2, ...], ...] in pixels', 'error'
    short = [len(polygon) < _SHORTEST for polygon in mask]
    if not training and short[0]:
        # pycocotools looks at the first alone.
        return 'begins with a polygon of fewer than three points, at which the evaluation of masks stops', 'error'
    if training and all(short):
        return 'has no polygon of three points or more, at which mmdet drops the object: draw it or remove it', 'error'
    if all(_misses(polygon, height, width) for polygon in mask):
        return _BLANK
    if training and any(short):
        return f'has {sum(short)} polygons of fewer than three points, which mmdet leaves out, beside others', 'warning'
    return None


def _polygon_error(polygon: Any) -> str:
    if not isinstance(polygon, list):
        return f'{reprlib.repr(polygon)} among its polygons instead of a list'
    wrong = [value for value in polygon if not is_number(value)]
    if wrong:
        nested = isinstance(wrong[0], list)
        return 'a polygon of nested points' if nested else f'the coordinate {reprlib.repr(wrong[0])} in a polygon'
    return f'a polygon of {len(polygon)} numbers, which do not pair' if len(polygon) % 2 else ''


def _misses(polygon: Sequence[float], height: int, width: int) -> bool:
    """Whether a polygon is outside its image, or has no extent."""
    return any(
        not values or min(values) == max(values) or max(values) <= 0 or min(values) >= side
        for values, side in ((polygon[::2], width), (polygon[1::2], height))
    )


def _rle_finding(mask: Mapping[str, Any], height: int, width: int) -> Finding | None:
    if mask.get('size') != [height, width]:
        return f'has an RLE of the size {reprlib.repr(mask.get("size"))}, but its image is [{height}, {width}]', 'error'
    counts = mask.get('counts')
    runs = None
    if isinstance(counts, list) and all(is_number(count, 0, 2**32 - 1) and count % 1 == 0 for count in counts):
        runs = np.array(counts, np.int64)
    elif isinstance(counts, str):
        runs = _decoded_runs(counts)
    if runs is None:
        what = f'has an RLE with the counts {reprlib.repr(counts)}, which is no list of run lengths and no RLE string'
        return what, 'error'
    if runs.sum() != height * width:
        return f'has an RLE of {runs.sum()} pixels, but its image has {height * width}', 'error'
    return None if runs[1::2].any() else _BLANK


def _decoded_runs(text: str) -> NDArray[np.int64] | None:
    """Decode the run lengths of an RLE string, int64 [N]; None where it is none.

    pycocotools itself reads beyond the end of a string that is cut off, and gives unset memory for what a short one
    leaves open. The format: characters from 48 on carry 5 bits each, the lowest first, and 32 where the number goes on;
    16 in the last one means that the number is negative; from the fourth number on it is the difference to the one two
    before.
    """
    try:
        codes = np.frombuffer(text.encode('ascii'), np.uint8).astype(np.int64) - 48
    except UnicodeEncodeError:
        return None
    if not len(codes) or codes.min() < 0 or codes.max() > 63 or codes[-1] & 32:
        return None
    ends = np.flatnonzero(codes & 32 == 0)
    starts = np.concatenate(([0], ends[:-1] + 1))
    lengths = ends + 1 - starts
    if lengths.max() > _LONGEST_COUNT:
        return None
    shifts = 5 * (np.arange(len(codes)) - np.repeat(starts, lengths))
    runs: NDArray[np.int64] = np.add.reduceat((codes & 31) << shifts, starts)
    runs -= (codes[ends] & 16 != 0).astype(np.int64) << 5 * lengths
    runs[1::2] = np.cumsum(runs[1::2])
    runs[2::2] = np.cumsum(runs[2::2])
    return None if runs.min() < 0 else runs
