"""Problems of segmentation data: images, their label maps, and the labels in them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from inspect import getmro, signature
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from coc_core.mm.data_checks.images import read_pixels, size_problems
from coc_core.mm.data_checks.inspection import (
    Inspection,
    Sample,
    class_names,
    dataset_class,
    home_problems,
    path_below,
    shown,
)
from coc_core.mm.data_checks.problems import Problem, repeated
from coc_core.mm.loading import ImageLoader, LabelMapLoader, image_loader, label_map_loader


@dataclass(frozen=True)
class LabelRule:
    """Which values a label map may hold.

    Attributes:
        num_labels: The number of classes that maps are drawn with, the background apart where zero is reduced.
        reduce_zero_label: 0 means no label, and the classes begin at 1 (ADE20K); else they begin at 0.
        ignore_index: The value of pixels that count for nothing.
    """

    num_labels: int
    reduce_zero_label: bool
    ignore_index: int = 255

    def wrong_labels(self, values: Sequence[float]) -> list[float]:
        """Return those values of a map, as stored, that stand for no class."""
        highest = self.num_labels - (0 if self.reduce_zero_label else 1)
        known = (self.ignore_index, 255)
        return [v for v in values if v not in known and not (0 <= v <= highest and v == int(v))]

    def describe(self) -> str:
        """Say in words what is allowed."""
        first, last = (1, self.num_labels) if self.reduce_zero_label else (0, self.num_labels - 1)
        none = f'0 and {self.ignore_index}' if self.reduce_zero_label else str(self.ignore_index)
        return f'{first} to {last}, and {none} for no label'


@dataclass(frozen=True)
class Folders:
    """Where a split's images and label maps are."""

    images: Path
    maps: Path
    image_suffix: str
    map_suffix: str


def pairs(folders: Folders, ann_file: Path | None) -> list[tuple[Path, Path]]:
    """Return every image with the place of its label map, as mmseg pairs them."""
    if ann_file is not None and ann_file.is_file():
        names = [line.strip() for line in ann_file.read_text().splitlines() if line.strip()]
    else:
        files = sorted(folders.images.rglob(f'*{folders.image_suffix}'))
        names = [str(file.relative_to(folders.images)).removesuffix(folders.image_suffix) for file in files]
    return [(folders.images / f'{n}{folders.image_suffix}', folders.maps / f'{n}{folders.map_suffix}') for n in names]


def list_problems(ann_file: Path, *, training: bool) -> Iterator[Problem]:
    """Yield what is wrong with the lines of a list of images; one that is twice there may be meant so in training."""
    lines = [line.strip() for line in ann_file.read_text().splitlines()]
    if '' in lines:
        yield Problem(f'{ann_file}, line {lines.index("") + 1},', 'is empty: remove it')
    if not training:
        yield from repeated(str(ann_file), [line for line in lines if line])


def pairing_problems(folders: Folders, found: list[tuple[Path, Path]], *, listed: bool) -> Iterator[Problem]:
    """Yield what can be said without opening a file; where a list chooses images, other maps are no mistake."""
    if not found:
        yield Problem(str(folders.images), f'has no images *{folders.image_suffix}: set dataset.img_suffix')
    for image, label_map in found:
        if not image.is_file():
            yield Problem(str(image), 'does not exist')
        if not label_map.is_file():
            yield Problem(str(image), f'has no label map: {label_map} does not exist')
    if listed:
        return
    paired = {label_map for _, label_map in found}
    unused = [path for path in folders.maps.rglob(f'*{folders.map_suffix}') if path not in paired]
    if unused:
        yield Problem(str(unused[0]), f'and {len(unused) - 1} more label maps have no image', level='left out')


def open_pair(
    image: Path, label_map: Path, rule: LabelRule, load_image: ImageLoader, load_map: LabelMapLoader
) -> Sample:
    """Decode one image with its label map as training does and compare them."""
    pixels, labels = read_pixels(image, load_image), read_pixels(label_map, load_map)
    problems = [item for item in (pixels, labels) if isinstance(item, Problem)]
    if isinstance(labels, Problem):
        return Sample(problems)
    if labels.ndim != 2:
        return Sample([*problems, Problem(str(label_map), channel_difference(labels.shape))])
    if not isinstance(pixels, Problem):
        size = pixels.shape[:2]
        what = size_difference(labels.shape, size)
        difference = Problem(str(label_map), what) if size != labels.shape else None
        problems += size_problems(image, size, load_image, 'label map', difference)
    values = label_values(labels)
    wrong = rule.wrong_labels(values)
    if wrong:
        problems.append(Problem(str(label_map), label_difference(wrong, rule)))
    return Sample(problems, frozenset(int(v) for v in values if v not in wrong))


def label_values(label_map: NDArray[Any]) -> list[float]:
    """Return the values that a map holds."""
    # Several times as fast as np.unique, and it runs for every training sample.
    counted = label_map.dtype == np.uint8
    values = np.flatnonzero(np.bincount(label_map.ravel())) if counted else np.unique(label_map)
    return [*values.tolist()]


def lost_labels(label_map: Path, rule: LabelRule, load: LabelMapLoader) -> list[float]:
    """Return the wrong values of a map that has more than 8 bits, of which mmseg drops the upper ones."""
    try:
        with Image.open(label_map) as image:
            deep = image.mode.startswith(('I', 'F'))
    except Exception:  # What is damaged is found when it is loaded.
        return []
    labels = read_pixels(label_map, load) if deep else np.empty(0)
    return [] if isinstance(labels, Problem) else rule.wrong_labels(label_values(labels))


def channel_difference(shape: tuple[int, ...]) -> str:
    """Return the rest of a sentence about a label map of several channels, by the shape that it is loaded with."""
    return f'has {shape[2]} channels: a label map has one, of class numbers'


def size_difference(map_size: tuple[int, ...], image_size: tuple[int, ...]) -> str:
    """Return the rest of a sentence about a label map of another size than its image, sizes as (rows, columns)."""
    return f'has {map_size[1]}x{map_size[0]} pixels, its image {image_size[1]}x{image_size[0]}'


def label_difference(wrong: Sequence[float], rule: LabelRule) -> str:
    """Return the rest of a sentence about labels that stand for no class."""
    which = f'the labels {shown(wrong)}, which stand for no class ({rule.describe()})'
    return f'has {which}: check metainfo and reduce_zero_label'


def has_maps(dataset: Mapping[str, Any]) -> bool:
    """Whether a data set's config names a folder of label maps."""
    prefix = dataset.get('data_prefix')
    return isinstance(prefix, Mapping) and bool(prefix.get('seg_map_path'))


def zero_is_none(scope: str, dataset: Mapping[str, Any]) -> bool:
    """Whether 0 in the label maps of a data set counts for nothing, and its classes begin at 1."""
    return bool((_defaults(dataset_class(scope, dataset)) | dict(dataset)).get('reduce_zero_label'))


def inspect(inspection: Inspection, scope: str, dataset: Mapping[str, Any]) -> None:
    """Add the checks of a data set of images with label maps.

    Args:
        inspection: What they are added to.
        scope: Where its class is registered.
        dataset: Its config.
    """
    kind = dataset_class(scope, dataset)
    arguments = _defaults(kind) | dict(dataset)
    prefix = dataset['data_prefix']
    folders = Folders(
        path_below(dataset, prefix.get('img_path', '')),
        path_below(dataset, prefix['seg_map_path']),
        arguments['img_suffix'],
        arguments['seg_map_suffix'],
    )
    own = getattr(kind, 'METAINFO', {}).get('classes')
    wanted = class_names((dataset.get('metainfo') or {}).get('classes'))
    if own and wanted and not set(wanted) <= set(own):
        other = next(name for name in wanted if name not in own)
        what = f"knows no class {other!r} (dataset.metainfo.classes): set dataset.type='BaseSegDataset' for your own"
        inspection.problems.append(Problem(kind.__name__, what))
    ann_file = path_below(dataset, dataset['ann_file']) if dataset.get('ann_file') else None
    found = pairs(folders, ann_file)
    inspection.problems.extend(home_problems(dataset))
    if ann_file is not None and ann_file.is_file():
        inspection.problems.extend(list_problems(ann_file, training=inspection.training))
    inspection.files = [image for image, _ in found]
    inspection.problems.extend(pairing_problems(folders, found, listed=ann_file is not None))
    rule = label_rule(kind, arguments)
    complete = [(image, label_map) for image, label_map in found if image.is_file() and label_map.is_file()]
    if rule is not None and complete:
        loaders = image_loader(dataset.get('pipeline'), scope), label_map_loader(dataset.get('pipeline'), scope)
        inspection.samples.extend(partial(open_pair, *pair, rule, *loaders) for pair in complete)
        inspection.unseen = trained_labels(own or wanted or [], wanted or own or [], rule)
    inspection.summary = f'{len(found)} images, {rule.num_labels if rule else "no"} classes'


def label_rule(kind: Any, arguments: Mapping[str, Any]) -> LabelRule | None:
    """Return which labels the maps of a segmentation data set may hold; None where it names no classes.

    Args:
        kind: The data set's class, whose own classes the maps are drawn with where it has any.
        arguments: What it is built with, or its attributes.
    """
    own = getattr(kind, 'METAINFO', {}).get('classes')
    classes = own or class_names((arguments.get('metainfo') or {}).get('classes'))
    if classes is None:
        return None
    return LabelRule(len(classes), bool(arguments.get('reduce_zero_label')), arguments.get('ignore_index', 255))


def trained_labels(drawn: Sequence[str], trained: Sequence[str], rule: LabelRule) -> dict[int, str]:
    """Return the values, as stored, that a model learns from, with their names.

    Args:
        drawn: The classes that maps are drawn with.
        trained: Those of them that the data set keeps, in its own order.
        rule: What the values mean.
    """
    first = 1 if rule.reduce_zero_label else 0
    kept = [name for place, name in enumerate(trained) if place != rule.ignore_index]
    return {value: name for value, name in enumerate(drawn, first) if name in kept}


def _defaults(kind: Any) -> dict[str, Any]:
    """Return the arguments that a segmentation data set has where a config is silent."""
    found: dict[str, Any] = {}
    for level in reversed(getmro(kind)[:-1]):
        for name, parameter in signature(level).parameters.items():
            if parameter.default is not parameter.empty:
                found[name] = parameter.default
    return found
