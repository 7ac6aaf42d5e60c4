"""Problems of images in class folders: mmpretrain numbers folders by name, and passes over files that it cannot use."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from coc_core.files import is_hidden
from coc_core.mm.data_checks.inspection import Inspection, open_file, shown
from coc_core.mm.data_checks.problems import Problem
from coc_core.mm.loading import ImageLoader

_NUMBERED = re.compile(r'[a-z]?(\d+)', re.IGNORECASE)


def inspect(inspection: Inspection, dataset: Any, loader: ImageLoader | None) -> None:
    """Add the checks of a data set that finds its images in folders.

    Args:
        inspection: What they are added to.
        dataset: mmpretrain's ``CustomDataset`` without annotation file, built but not loaded.
        loader: What decodes the samples' files; None where they are not opened.
    """
    root, problems = os.path.normpath(dataset.img_prefix), inspection.problems
    inspection.files = [root]
    # Without labels a folder is one heap of images.
    folders, left_out = listed(root, problems) if dataset.with_label else ([''], [])
    counts = {}
    for folder in folders:
        found = list(files_below(os.path.join(root, folder), problems))
        images = [path for path in found if dataset.is_valid_file(path)]
        left_out.extend(path for path in found if not dataset.is_valid_file(path))
        counts[folder] = len(images)
        if loader is not None:
            inspection.samples.extend(partial(open_file, Path(path), loader) for path in images)
    problems.extend(_left_out(root, left_out, dataset))
    total = sum(counts.values())
    inspection.summary = f'{total} images'
    if not total:
        where = f'in its {len(folders)} class folders' if dataset.with_label else 'in it'
        problems.append(Problem(root, f'has no images {where} with the endings {" ".join(sorted(dataset.extensions))}'))
    if dataset.with_label:
        inspection.classes = folders
        inspection.summary += f' in {len(folders)} class folders'
        problems.extend(class_problems(root, folders, dataset.CLASSES))
        if total:
            problems.extend(inspection.missing_classes(root, [name for name, count in counts.items() if not count]))


def listed(folder: str, problems: list[Problem]) -> tuple[list[str], list[str]]:
    """Return the names of the folders in a folder and the paths of its files, sorted, as mmpretrain sees them.

    What is hidden is not listed. Links are followed; those that lead nowhere are added to ``problems``.
    """
    folders, files = [], []
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        problems.append(Problem(folder, f'cannot be listed ({error.strerror})'))
        return [], []
    for entry in entries:
        if is_hidden(entry.name):
            continue
        if os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir():
            folders.append(entry.name)
        elif os.path.isfile(entry.path) if entry.is_symlink() else entry.is_file():
            files.append(entry.path)
        else:
            problems.append(Problem(entry.path, 'is a link to what does not exist: mend or remove it'))
    return folders, files


def files_below(folder: str, problems: list[Problem], above: tuple[tuple[int, int], ...] = ()) -> Iterator[str]:
    """Yield the paths of the files in a folder and in those below it, as `listed` does.

    Args:
        folder: The folder.
        problems: What is wrong is added to it.
        above: Device and number of each folder that leads to it: a link back to one of them has no end.
    """
    status = os.stat(folder)
    here = (status.st_dev, status.st_ino)
    if here in above:
        problems.append(Problem(folder, 'is a link to a folder that it lies in, which has no end: remove it'))
        return
    folders, files = listed(folder, problems)
    yield from files
    for name in folders:
        yield from files_below(os.path.join(folder, name), problems, (*above, here))


def _left_out(root: str, paths: Sequence[str], dataset: Any) -> Iterator[Problem]:
    """Yield the problem of files that are no samples, by their endings, or because they lie beside class folders."""
    groups = defaultdict(list)
    for path in paths:
        ending = os.path.splitext(path)[1].lower()
        groups['beside the class folders' if dataset.is_valid_file(path) else f'*{ending}'].append(path)
    if groups:
        each = ', '.join(f'{len(group)} {name} (first {group[0]})' for name, group in groups.items())
        what = f'has files that are not read: {each}; dataset.extensions names the endings that are'
        yield Problem(root, what, level='left out')


def class_problems(root: str, folders: Sequence[str], classes: Sequence[str] | None) -> Iterator[Problem]:
    """Yield how class folders, whose labels are their places in the alphabet, differ from the names of the classes.

    Args:
        root: Where the folders are.
        folders: Their names, sorted.
        classes: The class names in the order of their labels; None where folders name the classes.
    """
    if classes is None:
        return
    labels = {name.casefold(): label for label, name in enumerate(classes)}
    pairs = list(zip(folders, classes, strict=False))
    renamed = [(folder, name) for folder, name in pairs if folder.casefold() != name.casefold()]
    both = f'has the class folders {shown(folders, 10)}, but the classes are {shown(classes, 10)}'
    remedy = "write the folders' names in this order into dataset.metainfo.classes"
    if len(folders) != len(classes):
        yield Problem(root, f'{both}: {len(folders)} folders for {len(classes)} classes: {remedy}')
    elif moved := [folder for folder, _ in renamed if folder.casefold() in labels]:
        label = folders.index(moved[0])
        what = f'folders are numbered by name, so that {moved[0]!r} has the label {label} of {classes[label]!r}'
        yield Problem(root, f'{both}: {what}: {remedy}')
    elif renamed and not _numbered([folder for folder, _ in renamed]):
        folder, name = renamed[0]
        what = f'folders are numbered by name, so that {folder!r} is the class {name!r}'
        yield Problem(root, f'{both}: {what}', level='warning')


def _numbered(folders: Sequence[str]) -> bool:
    """Whether folder names are numbers, or ids such as ImageNet's n01440764, in the order of the numbers."""
    found = [_NUMBERED.fullmatch(folder) for folder in folders]
    numbers = [int(match[1]) for match in found if match]
    return len(numbers) == len(folders) and numbers == sorted(numbers)
