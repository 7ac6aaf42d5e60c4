"""Problems of text files that list images with their labels, ``NAME LABEL`` in each line."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from mmengine.fileio import list_from_file

from coc_core.mm.data_checks.images import absent_files
from coc_core.mm.data_checks.inspection import Inspection, open_file
from coc_core.mm.data_checks.problems import Problem, repeated
from coc_core.mm.loading import ImageLoader


def inspect(inspection: Inspection, dataset: Any, loader: ImageLoader | None) -> None:
    """Add the checks of a data set that finds its images in a text file.

    Args:
        inspection: What they are added to.
        dataset: mmpretrain's ``CustomDataset`` with an annotation file, built but not loaded.
        loader: What decodes the samples' files; None where they are not opened.
    """
    place, problems = dataset.ann_file, inspection.problems
    try:
        lines = list_from_file(place)
    except (OSError, ValueError) as error:
        problems.append(Problem(place, f'cannot be read as text ({error})'))
        return
    classes = dataset.CLASSES or [str(label) for label in range(inspection.num_classes or 0)]
    labels: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        where = f'{place}, line {number},'
        name, label = parsed(line) if dataset.with_label else (line, 0)
        if not line.strip():
            problems.append(Problem(where, 'is empty: remove it'))
        elif label is None:
            problems.append(Problem(where, f'is {line!r}: give the name of an image, a space and a whole number'))
        elif classes and dataset.with_label and not 0 <= label < len(classes):
            what = f'has the label {label}, but there are {len(classes)} classes, from 0'
            problems.append(Problem(where, what))
        elif labels.setdefault(name, label) != label:
            problems.append(Problem(where, f'gives {name} the label {label}, which has the label {labels[name]} above'))
    if not inspection.training:
        problems.extend(repeated(place, [parsed(line)[0] if dataset.with_label else line for line in lines]))
    if not lines:
        problems.append(Problem(place, 'lists no images'))
    paths = [Path(dataset.img_prefix, name) for name in labels]
    inspection.files = paths
    absent = absent_files(paths)
    problems.extend(Problem(str(path), f'does not exist, although {place} lists it') for path in absent)
    if dataset.with_label and lines:
        seen = set(labels.values())
        problems.extend(inspection.missing_classes(place, [n for i, n in enumerate(classes) if i not in seen]))
    if loader is not None:
        gone = set(absent)
        inspection.samples.extend(partial(open_file, path, loader) for path in paths if path not in gone)
    inspection.summary = f'{len(lines)} images'


def parsed(line: str) -> tuple[str, int | None]:
    """Return the name and the label of a line as mmpretrain reads it; None where it cannot."""
    name, _, label = line.strip().rpartition(' ')
    try:
        return name, int(label)
    except ValueError:
        return name, None
