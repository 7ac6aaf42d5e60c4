"""Problems of COCO annotation files, which mmdet meets with a stack trace, a wrong label or silence."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from coc_core.mm.data_checks.images import absent_files, read_pixels, size_problems
from coc_core.mm.data_checks.inspection import (
    Inspection,
    Sample,
    class_names,
    dataset_class,
    path_below,
    transforms_of,
)
from coc_core.mm.data_checks.problems import Problem
from coc_core.mm.loading import ImageLoader, image_loader


def inspect(inspection: Inspection, scope: str, dataset: Mapping[str, Any]) -> None:
    """Add the checks of a data set with a COCO annotation file.

    Args:
        inspection: What they are added to.
        scope: Where its class is registered.
        dataset: Its config.
    """
    ann_file = path_below(dataset, dataset['ann_file'])
    folder = path_below(dataset, (dataset.get('data_prefix') or {}).get('img', ''))
    content = read(ann_file)
    if isinstance(content, Problem):
        inspection.problems.append(content)
        return
    masks = any(step.get('with_mask') for step in transforms_of(dataset.get('pipeline')))
    inspection.problems.extend(annotation_problems(content, ann_file, folder, _classes(scope, dataset), masks=masks))
    named = [image for image in content['images'] if 'file_name' in image and (folder / image['file_name']).is_file()]
    loader = image_loader(dataset.get('pipeline'), scope)
    inspection.samples.extend(partial(open_image, image, folder, loader) for image in named)
    inspection.summary = (
        f'{len(content["images"])} images, {len(content["annotations"])} annotations, '
        f'{len(content["categories"])} categories, {empty_images(content)} images without annotation'
    )


def _classes(scope: str, dataset: Mapping[str, Any]) -> list[str]:
    named = class_names((dataset.get('metainfo') or {}).get('classes'))
    return named or class_names(getattr(dataset_class(scope, dataset), 'METAINFO', {}).get('classes')) or []


def read(ann_file: Path) -> dict[str, Any] | Problem:
    """Read an annotation file, or say why it cannot be used at all."""
    try:
        content = json.loads(ann_file.read_bytes())
    except FileNotFoundError:
        return Problem(str(ann_file), 'does not exist')
    except ValueError as error:
        return Problem(str(ann_file), f'is not valid JSON ({error})')
    lists = content if isinstance(content, Mapping) else {}
    lacking = [key for key in ('images', 'annotations', 'categories') if not isinstance(lists.get(key), list)]
    if lacking:
        return Problem(str(ann_file), f'is not in COCO format: it has no list {" and no list ".join(lacking)}')
    return dict(lists)


def annotation_problems(
    content: Mapping[str, Any], ann_file: Path, folder: Path, classes: Sequence[str], *, masks: bool
) -> Iterator[Problem]:
    """Yield what can be said without opening an image.

    Args:
        content: What `read` returned.
        ann_file: The file that it came from.
        folder: Where the images are.
        classes: The class names of the data set's metainfo.
        masks: Whether the pipeline loads masks.
    """
    place = str(ann_file)
    yield from _list_problems(content, place)
    yield from _category_problems(content, place, classes)
    for path in absent_files(folder / image['file_name'] for image in content['images'] if 'file_name' in image):
        yield Problem(str(path), f'does not exist, although {ann_file} lists it')
    yield from _object_problems(content, place, masks)


def _list_problems(content: Mapping[str, Any], place: str) -> Iterator[Problem]:
    if not content['images']:
        yield Problem(place, 'lists no images')
    if not content['annotations']:
        yield Problem(place, 'has an empty list of annotations: there is nothing to learn or to compare with')
    for name, kind in (('images', 'image'), ('annotations', 'annotation'), ('categories', 'category')):
        needed = {'images': ('id', 'file_name', 'height', 'width'), 'categories': ('id', 'name')}.get(name, ('id',))
        for entry in content[name]:
            lacking = [key for key in needed if key not in entry]
            if lacking:
                yield Problem(place, f'has the {kind} {entry.get("id", "without id")} without {" and ".join(lacking)}')
        ids = Counter(entry.get('id') for entry in content[name])
        repeated = [key for key, count in ids.items() if count > 1]
        if repeated:
            yield Problem(place, f'gives {len(repeated)} {kind} ids more than once, first {repeated[0]}')


def _category_problems(content: Mapping[str, Any], place: str, classes: Sequence[str]) -> Iterator[Problem]:
    names = [category.get('name') for category in content['categories']]
    absent = [name for name in classes if name not in names]
    if absent:
        yield Problem(
            place,
            f'has no category {absent[0]!r} ({len(absent)} of the {len(classes)} classes of metainfo are not among its '
            f'categories {_shown(names)}), which would shift the labels: set dataset.metainfo.classes to its names',
        )
    order = [name for name in names if name in classes]
    if not absent and order != list(classes):
        yield Problem(
            place,
            f'orders its categories {_shown(order)}, metainfo {_shown(classes)}, and mmdet numbers labels in the '
            "file's order: write dataset.metainfo.classes in that order",
        )
    unlisted = {category.get('id'): category.get('name') for category in content['categories']}
    unlisted = {key: name for key, name in unlisted.items() if name not in classes}
    count = sum(entry.get('category_id') in unlisted for entry in content['annotations'])
    if unlisted:
        yield Problem(
            place,
            f'has {count} annotations of {len(unlisted)} categories that metainfo does not list '
            f'({_shown(list(unlisted.values()))})',
            level='left out',
        )


def _object_problems(content: Mapping[str, Any], place: str, masks: bool) -> Iterator[Problem]:
    images = {image.get('id'): image for image in content['images']}
    categories = {category.get('id') for category in content['categories']}
    for entry in content['annotations']:
        where = f'{place}: annotation {entry.get("id")}'
        box = entry.get('bbox')
        if entry.get('image_id') not in images:
            yield Problem(where, f'belongs to the image {entry.get("image_id")!r}, which the file does not list')
        elif entry.get('category_id') not in categories:
            yield Problem(where, f'has the category {entry.get("category_id")!r}, which the file does not list')
        elif not isinstance(box, list) or len(box) != 4 or not all(isinstance(v, (int, float)) for v in box):
            yield Problem(where, f'has the box {box!r} instead of [x, y, width, height]')
        elif 'area' not in entry:
            yield Problem(where, 'has no area')
        elif masks and not entry.get('segmentation'):
            yield Problem(where, 'has no segmentation, but the pipeline loads masks')
        elif not _visible(box, images[entry['image_id']]) or entry['area'] <= 0:
            yield Problem(where, f'has a box {box} of less than a pixel or outside its image', level='left out')


def _visible(box: Sequence[float], image: Mapping[str, Any]) -> bool:
    x, y, width, height = box
    inside = x < image.get('width', 0) and y < image.get('height', 0) and x + width > 0 and y + height > 0
    return width >= 1 and height >= 1 and inside


def _shown(names: Sequence[Any]) -> str:
    return ', '.join(map(str, names[:5])) + (', ...' if len(names) > 5 else '')


def empty_images(content: Mapping[str, Any]) -> int:
    """Count the images without any annotation, which training leaves out and evaluation keeps."""
    seen = {entry.get('image_id') for entry in content['annotations']}
    return sum(image.get('id') not in seen for image in content['images'])


def open_image(image: Mapping[str, Any], folder: Path, loader: ImageLoader) -> Sample:
    """Decode one listed image as training does and compare its size with the file's."""
    path = folder / image['file_name']
    pixels = read_pixels(path, loader)
    if isinstance(pixels, Problem):
        return Sample([pixels])
    actual, listed = pixels.shape[:2], (image.get('height'), image.get('width'))
    what = f'has {actual[1]}x{actual[0]} pixels, its annotations are for {listed[1]}x{listed[0]}'
    difference = Problem(str(path), what) if actual != listed else None
    return Sample(size_problems(path, actual, loader, 'annotations', difference))
