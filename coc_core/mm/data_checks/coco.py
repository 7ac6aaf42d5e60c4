"""Problems of COCO annotation files, which mmdet meets with a stack trace, a wrong label or silence."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from coc_core.mm.data_checks.coco_lists import Listing, evaluation_problems, is_id, listing_of, read
from coc_core.mm.data_checks.coco_objects import Reading, check_objects, class_problems
from coc_core.mm.data_checks.images import absent_files, annotated_size_difference, read_pixels, size_problems
from coc_core.mm.data_checks.inspection import (
    Inspection,
    Sample,
    class_names,
    dataset_class,
    home_problems,
    path_below,
    shown,
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
    problems = inspection.problems
    inspection.problems.extend(home_problems(dataset))
    if isinstance(content, Problem):
        problems.append(content)
        return
    place = str(ann_file)
    reading = _reading(scope, dataset, inspection.training)
    listing = listing_of(content, place, problems)
    problems.extend(_category_problems(listing, place, reading.classes))
    absent = _absent_images(listing, folder, problems)
    problems.extend(_image_problems(listing, folder, absent, place, reading))
    if not inspection.training:
        problems.extend(evaluation_problems(listing, place))
    found = check_objects(listing, place, reading)
    problems.extend(found.problems)
    problems.extend(class_problems(found, listing, place, reading.classes, inspection))
    inspection.files = [folder / image['file_name'] for image in listing.images.values()]
    present = [image for image in listing.images.values() if folder / image['file_name'] not in absent]
    loader = image_loader(dataset.get('pipeline'), scope)
    inspection.samples.extend(partial(open_image, image, folder, loader) for image in present)
    annotated = {entry.get('image_id') for entry in listing.annotations if is_id(entry.get('image_id'))}
    inspection.summary = (
        f'{len(content["images"])} images, {len(content["annotations"])} annotations ({found.crowds} of crowds), '
        f'{len(content["categories"])} categories, {len(listing.images.keys() - annotated)} images without annotation'
    )


def _reading(scope: str, dataset: Mapping[str, Any], training: bool) -> Reading:
    classes = class_names((dataset.get('metainfo') or {}).get('classes'))
    loading = [step for step in transforms_of(dataset.get('pipeline')) if step.get('with_mask')]
    filtered = {} if dataset.get('test_mode') else dataset.get('filter_cfg') or {}
    return Reading(
        classes=classes or class_names(getattr(dataset_class(scope, dataset), 'METAINFO', {}).get('classes')) or [],
        training=training,
        masks=bool(loading),
        polygons_only=any(not step.get('poly2mask', True) for step in loading),
        min_size=filtered.get('min_size', 0),
    )


def _category_problems(listing: Listing, place: str, classes: Sequence[str]) -> Iterator[Problem]:
    if any(key == 'category_id' for key, _ in listing.damaged):
        # Any more would follow from that.
        return
    names = list(listing.categories.values())
    repeated = [name for name, count in Counter(names).items() if count > 1 and name in classes]
    if repeated:
        ids = [key for key, name in listing.categories.items() if name == repeated[0]]
        what = f'has {len(ids)} categories {repeated[0]!r} (ids {shown(ids)}), and mmdet makes a label of each'
        yield Problem(place, f'{what}: give their annotations one of the ids, and remove the others')
    absent = [name for name in classes if name not in names]
    if absent:
        near = next((name for name in names if _plain(name) == _plain(str(absent[0]))), None)
        hint = '' if near is None else f', which it writes {near!r}'
        yield Problem(
            place,
            f'has no category {absent[0]!r}{hint} ({len(absent)} of the {len(classes)} classes of metainfo are not '
            f'among its categories {shown(names)}), which would shift the labels: set dataset.metainfo.classes to its '
            'names',
        )
    order = [name for name in names if name in classes]
    if not absent and not repeated and order != list(classes):
        yield Problem(
            place,
            f'orders its categories {shown(order)}, metainfo {shown(classes)}, and mmdet numbers labels in the '
            "file's order: write dataset.metainfo.classes in that order, or where another file of the config has the "
            "order of metainfo, reorder this file's list categories (their ids may stay)",
        )
    unlisted = {key: name for key, name in listing.categories.items() if name not in classes}
    ids = [entry.get('category_id') for entry in listing.annotations]
    count = sum(is_id(value) and value in unlisted for value in ids)
    if unlisted:
        yield Problem(
            place,
            f'has {count} annotations of {len(unlisted)} categories that metainfo does not list '
            f'({shown(list(unlisted.values()))})',
            level='left out',
        )


def _plain(name: str) -> str:
    """Return a name without what differs between spellings of it."""
    return re.sub(r'[\s_-]', '', name.casefold())


def _absent_images(listing: Listing, folder: Path, problems: list[Problem]) -> set[Path]:
    try:
        return set(absent_files(folder / image['file_name'] for image in listing.images.values()))
    except OSError as error:
        problems.append(Problem(str(folder), f'cannot be listed ({error})'))
        return set()


def _image_problems(
    listing: Listing, folder: Path, absent: set[Path], place: str, reading: Reading
) -> Iterator[Problem]:
    paths = Counter(folder / image['file_name'] for image in listing.images.values())
    for path in paths:
        if path in absent:
            hint = ' (paths have / where it writes \\)' if '\\' in str(path) else ''
            yield Problem(str(path), f'does not exist, although {place} lists it{hint}')
    repeated = [path for path, count in paths.items() if count > 1]
    if repeated:
        yield Problem(
            place,
            f'lists {len(repeated)} files more than once, first {repeated[0]}: what one entry annotates is missing in '
            'the other',
            'warning',
        )
    small = sum(not reading.keeps(image) for image in listing.images.values())
    if small:
        what = f'has {small} images smaller than min_size={reading.min_size} of filter_cfg'
        yield Problem(place, what, 'left out')


def open_image(image: Mapping[str, Any], folder: Path, loader: ImageLoader) -> Sample:
    """Decode one listed image as training does and compare its size with the file's."""
    path = folder / image['file_name']
    pixels = read_pixels(path, loader)
    if isinstance(pixels, Problem):
        return Sample([pixels])
    actual, listed = pixels.shape[:2], (image.get('height'), image.get('width'))
    what = annotated_size_difference(actual, listed)
    difference = None if what is None else Problem(str(path), what)
    return Sample(size_problems(path, actual, loader, 'annotations', difference))
