"""The lists of a COCO annotation file: whether they are there, and which of their entries are whole."""

from __future__ import annotations

import json
import reprlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coc_core.mm.data_checks.coco_masks import is_number
from coc_core.mm.data_checks.problems import Problem

_KINDS = {'images': 'image', 'annotations': 'annotation', 'categories': 'category'}
_NEEDED = {'images': ('id', 'file_name', 'height', 'width'), 'annotations': ('id',), 'categories': ('id', 'name')}


@dataclass(frozen=True)
class Listing:
    """The entries of an annotation file that have what identifies them.

    Attributes:
        images: With a file name and a size, by id.
        annotations: With an id; what else they hold is unchecked.
        categories: Names by id, in the file's order.
        damaged: Entries that have an id and are wrong otherwise, as an annotation refers to them: (key, id).
    """

    images: Mapping[Any, Mapping[str, Any]]
    annotations: list[Mapping[str, Any]]
    categories: Mapping[Any, str]
    damaged: frozenset[tuple[str, Any]]


def read(ann_file: Path) -> dict[str, list[Any]] | Problem:
    """Read the three lists of an annotation file, or say why it cannot be used at all."""
    try:
        # As pycocotools reads it, which takes neither a byte order mark nor UTF-16.
        content = json.loads(ann_file.read_text(encoding='utf-8'))
    except FileNotFoundError:
        return Problem(str(ann_file), 'does not exist')
    except OSError as error:
        return Problem(str(ann_file), f'cannot be read ({error})')
    except (ValueError, RecursionError) as error:
        return Problem(str(ann_file), f'is not valid JSON ({error})')
    lists = content if isinstance(content, Mapping) else {}
    lacking = [key for key in _KINDS if not isinstance(lists.get(key), list)]
    if lacking:
        return Problem(str(ann_file), f'is not in COCO format: it has no list {" and no list ".join(lacking)}')
    return {key: lists[key] for key in _KINDS}


def listing_of(content: Mapping[str, list[Any]], place: str, problems: list[Problem]) -> Listing:
    """Return the entries that are whole, and add what is wrong with the others.

    Args:
        content: What `read` returned.
        place: The file, for messages.
        problems: What is added to.
    """
    if not content['images']:
        problems.append(Problem(place, 'lists no images'))
    if not content['annotations']:
        what = 'has an empty list of annotations: there is nothing to learn or to compare with'
        problems.append(Problem(place, what))
    whole: dict[str, list[Any]] = {}
    damaged = set()
    for key, kind in _KINDS.items():
        whole[key] = []
        for entry in content[key]:
            if wrong := _entry_error(key, entry):
                problems.append(Problem(place, wrong))
                if isinstance(entry, Mapping) and is_id(entry.get('id')):
                    damaged.add((f'{kind}_id', entry['id']))
            else:
                whole[key].append(entry)
        ids = Counter(entry['id'] for entry in whole[key])
        repeated = [value for value, count in ids.items() if count > 1]
        if repeated:
            problems.append(Problem(place, f'gives {len(repeated)} {kind} ids more than once, first {repeated[0]}'))
    images = {image['id']: image for image in whole['images']}
    categories = {category['id']: category['name'] for category in whole['categories']}
    return Listing(images, whole['annotations'], categories, frozenset(damaged))


def _entry_error(key: str, entry: Any) -> str:
    kind = _KINDS[key]
    if not isinstance(entry, Mapping):
        return f'has {reprlib.repr(entry)} among its {key} instead of an object'
    lacking = [name for name in _NEEDED[key] if name not in entry]
    if lacking:
        which = f'the {kind} {reprlib.repr(entry["id"])}' if 'id' in entry else f'one of its {key}'
        return f'has {which} without {" and ".join(lacking)}'
    if not is_id(entry['id']):
        return f'has the {kind} id {reprlib.repr(entry["id"])}: write a whole number of 64 bits'
    if key == 'categories' and not is_text(entry['name']):
        return f'has the category {entry["id"]!r} with the name {reprlib.repr(entry["name"])}: write a string'
    return _image_error(entry) if key == 'images' else ''


def _image_error(image: Mapping[str, Any]) -> str:
    name = image['file_name']
    if not is_text(name) or not name or '\0' in name:
        return f'has the image {image["id"]!r} with the file_name {reprlib.repr(name)}: write a path'
    for side in ('height', 'width'):
        if not is_number(image[side], 1) or image[side] % 1:
            value = reprlib.repr(image[side])
            return f'has the image {image["id"]!r} with the {side} {value}: write a whole number of pixels'
    return ''


def is_id(value: Any) -> bool:
    """Whether a value can identify an entry: NumPy, which sorts ids in evaluation, has integers of 64 bits."""
    return is_text(value) or is_number(value, -(2**63), 2**63 - 1)


def is_text(value: Any) -> bool:
    """Whether a value is a string that can be printed: JSON can escape half a character."""
    return isinstance(value, str) and not any('\ud800' <= letter <= '\udfff' for letter in value)


def evaluation_problems(listing: Listing, place: str) -> Iterator[Problem]:
    """Yield what is wrong with ids only where COCO's evaluation meets them."""
    for kind, ids in (('image', listing.images), ('category', listing.categories)):
        names = [value for value in ids if isinstance(value, str)]
        if 0 < len(names) < len(ids):
            yield Problem(place, f'mixes numbers and strings as {kind} ids (first {names[0]!r}): evaluation sorts them')
    own = [entry['id'] for entry in listing.annotations]
    unusable = [value for value in own if _as_number(value) is None]
    if unusable:
        what = f'has {len(unusable)} annotation ids that are no numbers, first {reprlib.repr(unusable[0])}'
        yield Problem(place, f'{what}: evaluation keeps them in an array of numbers')
    if any(_as_number(value) == 0 for value in own):
        what = 'has the annotation id 0, which pycocotools takes for no match: that object is never found. Begin with 1'
        yield Problem(place, what, 'warning')


def _as_number(value: Any) -> float | None:
    try:
        return float(value)
    except ValueError:
        return None
