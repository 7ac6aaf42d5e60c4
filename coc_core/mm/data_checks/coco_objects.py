"""Problems of the annotations in a COCO file: boxes, areas, crowds and masks, and classes that have none."""

from __future__ import annotations

import reprlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from coc_core.mm.data_checks.coco_lists import Listing, is_id
from coc_core.mm.data_checks.coco_masks import REACH, Finding, is_number, mask_finding
from coc_core.mm.data_checks.inspection import Inspection
from coc_core.mm.data_checks.problems import Problem

# Boxes from which what they have in common is no chance.
_MANY = 10


@dataclass(frozen=True)
class Reading:
    """How mmdet reads the annotations of a data set.

    Attributes:
        classes: The class names of its metainfo.
        training: Whether a model learns from it.
        masks: Whether its pipeline loads masks.
        polygons_only: Whether it keeps them as polygons (``poly2mask=False``), for which an RLE is ignored.
        min_size: Height and width below which it leaves an image out.
    """

    classes: Sequence[str]
    training: bool
    masks: bool = False
    polygons_only: bool = False
    min_size: float = 0

    def keeps(self, image: Mapping[str, Any]) -> bool:
        """Whether an image is not left out for its size."""
        return bool(min(image['height'], image['width']) >= self.min_size)


@dataclass
class Objects:
    """What the annotations of a file come to.

    Attributes:
        problems: What is wrong with them.
        seen: Names of the classes that have at least one to learn from, or to compare with.
        crowds: How many stand for a crowd.
        unused: How many are of no use, by why.
    """

    problems: list[Problem] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)
    crowds: int = 0
    unused: Counter[str] = field(default_factory=Counter)


def check_objects(listing: Listing, place: str, reading: Reading) -> Objects:
    """Check every annotation of a file.

    Args:
        listing: The file's entries.
        place: The file, for messages.
        reading: How it is read.
    """
    found = Objects()
    known = frozenset(reading.classes)
    boxes = []
    for entry in listing.annotations:
        where = f'{place}: annotation {entry["id"]}'
        image, name = _listed(entry, 'image_id', listing.images), _listed(entry, 'category_id', listing.categories)
        if image is None or name is None:
            if wrong := _reference_error(entry, listing):
                found.problems.append(Problem(where, wrong))
            # It counts once it is mended.
            found.seen.update([name] if name else [])
            continue
        finding = _value_error(entry) or (_finding(entry, image, reading) if name in known else None)
        if finding:
            found.problems.append(Problem(where, *finding))
        level = finding[1] if finding else None
        if level == 'error':
            found.seen.add(name)
            continue
        if _overlaps(entry['bbox'], image):
            boxes.append((entry['id'], *entry['bbox'], image['width'], image['height']))
        found.crowds += bool(entry.get('iscrowd'))
        if name not in known:
            found.unused['of other categories'] += 1
        elif entry.get('iscrowd'):
            found.unused['crowds (iscrowd=1)'] += 1
        elif level == 'left out':
            found.unused['left out'] += 1
        elif not reading.keeps(image):
            found.unused[f'in images smaller than min_size={reading.min_size} of filter_cfg'] += 1
        else:
            found.seen.add(name)
    found.problems.extend(_box_problems(boxes, place))
    return found


def _listed(entry: Mapping[str, Any], key: str, listed: Mapping[Any, Any]) -> Any:
    """Return what an annotation belongs to; None where that is not among the whole entries of the file."""
    value = entry.get(key)
    return listed.get(value) if is_id(value) else None


def _reference_error(entry: Mapping[str, Any], listing: Listing) -> str:
    """Return what an annotation belongs to that the file does not list; empty where only that is damaged."""
    for key, says, listed in (
        ('image_id', 'belongs to the image', listing.images),
        ('category_id', 'has the category', listing.categories),
    ):
        value = entry.get(key)
        if not is_id(value) or not (value in listed or (key, value) in listing.damaged):
            near = next((other for other in (_number(value), str(value)) if other in listed), None)
            hint = '' if near is None else f' (it lists {near!r}: a number is no string)'
            return f'{says} {reprlib.repr(value)}, which the file does not list{hint}'
    return ''


def _number(value: Any) -> int | None:
    return int(value) if isinstance(value, str) and value.isdecimal() and len(value) < 20 else None


def _value_error(entry: Mapping[str, Any]) -> Finding | None:
    """Return what is wrong with the values that mmdet reads of every annotation, whatever its category."""
    box, area = entry.get('bbox'), entry.get('area')
    if not isinstance(box, list) or len(box) != 4 or not all(is_number(value) for value in box):
        return f'has the box {reprlib.repr(box)} instead of [x, y, width, height] in pixels', 'error'
    if min(box[2:]) < 0:
        return f'has a box {box} of negative size: write [x, y, width, height] with x, y its upper left corner', 'error'
    if 'area' not in entry:
        return 'has no area', 'error'
    if not is_number(area, 0, REACH**2):
        return f'has the area {reprlib.repr(area)}, which is no number of pixels', 'error'
    return None


def _finding(entry: Mapping[str, Any], image: Mapping[str, Any], reading: Reading) -> Finding | None:
    """Return the first thing that is wrong with an annotation of one of the classes."""
    # Evaluation reads the key without asking whether it is there.
    if entry.get('iscrowd', 0 if reading.training else None) not in (0, 1):
        given = f'the iscrowd {reprlib.repr(entry["iscrowd"])}' if 'iscrowd' in entry else 'no iscrowd'
        return f'has {given}: write 1 for a crowd, else 0', 'error'
    left_out = _left_out(entry, image) if reading.training else ''
    if left_out:
        return left_out, 'left out'
    if finding := _mask_finding(entry, image, reading):
        return finding
    box = entry['bbox']
    if not reading.training and (min(box[2:]) == 0 or not _overlaps(box, image)):
        return f'has a box {box} without a pixel in its image: it counts as never found', 'warning'
    return None


def _left_out(entry: Mapping[str, Any], image: Mapping[str, Any]) -> str:
    """Return why mmdet leaves an annotation out when it reads the file, if it does."""
    box = entry['bbox']
    if min(box[2:]) < 1 or not _overlaps(box, image):
        return f'has a box {box} of less than a pixel or outside its image'
    if entry['area'] == 0:
        return 'has the area 0'
    return 'is marked as ignore' if entry.get('ignore') else ''


def _overlaps(box: Sequence[float], image: Mapping[str, Any]) -> bool:
    x, y, width, height = box
    return bool(x < image['width'] and y < image['height'] and x + width > 0 and y + height > 0)


def _mask_finding(entry: Mapping[str, Any], image: Mapping[str, Any], reading: Reading) -> Finding | None:
    mask = entry.get('segmentation')
    if not reading.masks and (reading.training or not mask or mask == [[]]):
        return None
    if not mask:
        return 'has no segmentation, but the pipeline loads masks', 'error'
    if isinstance(mask, dict) and reading.training and reading.polygons_only and not entry.get('iscrowd'):
        return 'has an RLE, which mmdet ignores with poly2mask=False', 'left out'
    finding = mask_finding(mask, image['height'], image['width'], training=reading.training)
    # Where the pipeline loads no masks, evaluation may still read them.
    return (finding[0], 'warning') if finding and not reading.masks else finding


def _box_problems(boxes: list[tuple[Any, ...]], place: str) -> Iterator[Problem]:
    """Yield the problem of boxes that reach out of their images.

    Args:
        boxes: Annotation id, x, y, width and height of the box, and width and height of the image.
        place: The file, for messages.
    """
    if not boxes:
        return
    x, y, width, height, right, bottom = np.array([box[1:] for box in boxes], dtype=np.float64).T
    # Tools round.
    beyond = (x < -1) | (y < -1) | (x + width > right + 1) | (y + height > bottom + 1)
    if not beyond.any():
        return
    first = boxes[int(np.argmax(beyond))]
    what = (
        f'has {beyond.sum()} boxes that reach out of their images, first that of annotation {first[0]}, '
        f'{list(first[1:5])} in {first[5]}x{first[6]} pixels, and mmdet does not cut them'
    )
    # Some boxes [x, y, width, height] of few fit as corners too, but hardly all of many.
    corners = (width > x) & (height > y) & (width <= right + 1) & (height <= bottom + 1)
    if len(boxes) >= _MANY and corners.all() and 4 * beyond.sum() > len(boxes):
        what += '; read as corners [x1, y1, x2, y2] all boxes fit, but COCO means [x, y, width, height]'
    yield Problem(place, what, 'warning')


def class_problems(
    found: Objects, listing: Listing, place: str, classes: Sequence[str], inspection: Inspection
) -> Iterator[Problem]:
    """Yield the problem of classes that no annotation serves.

    Args:
        found: What `check_objects` returned.
        listing: The file's entries.
        place: The file, for messages.
        classes: The class names of the data set's metainfo.
        inspection: What knows whether a model learns from it.
    """
    if found.seen or not found.unused:
        named = set(listing.categories.values())
        missing = [name for name in classes if name in named and name not in found.seen]
        yield from inspection.missing_classes(place, missing if listing.annotations else [])
        return
    aim = 'learn from' if inspection.training else 'compare with'
    why = ', '.join(f'{count} are {reason}' for reason, count in found.unused.items())
    yield Problem(place, f'has nothing to {aim}: of its {len(listing.annotations)} annotations {why}')
