"""Finds training, validation and test data by the names of folders and files, and images below a folder."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from coc_core.errors import UserError
from coc_core.mm.data_checks.class_folders import files_below, listed
from coc_core.mm.data_checks.problems import Problem
from coc_core.visualization.files import IMAGE_SUFFIXES

PHASES = {
    'train': ('train', 'training'),
    'val': ('val', 'valid', 'validation'),
    'test': ('test', 'testing'),
}
_LOOKED_AT = 200


def phase_of(name: str) -> str | None:
    """Return the phase that a name has among its words (``instances_val2017``): train, val or test, or None."""
    words = re.findall(r'[a-z]+', name.casefold())
    return next((phase for phase, names in PHASES.items() if any(word in names for word in words)), None)


def phase_folders(folder: Path) -> dict[str, Path]:
    """Return the folders of a folder that are named after a phase and hold folders themselves, by phase.

    A folder of images alone can be a class that is called so, beside others that are not.

    Raises:
        UserError: Two have one phase, that for validation holds no folders, or all say a phase and none is one.
    """
    found: dict[str, Path] = {}
    bare = []
    names = subfolders(folder)
    for name in names:
        phase = next((phase for phase, words in PHASES.items() if name.casefold() in words), None)
        if phase is None:
            continue
        if not subfolders(folder / name):
            bare += [name] if phase == 'val' else []
            continue
        if phase in found:
            raise UserError(f'{folder} has {found[phase].name} and {name}, both for {phase}: keep one.')
        found[phase] = folder / name
    if found and bare:
        raise UserError(
            f'{folder / bare[0]} has no folders in it, unlike {next(iter(found.values()))}: lay it out alike, or move '
            'it away to have a part of the training images held back.'
        )
    if names and not found and all(map(phase_of, names)):
        raise UserError(
            f'{folder} has {" and ".join(names)}, which say train, val or test and are no classes: call them train, '
            'val and test, with a folder of its own for each class, or for images and for label maps, in each.'
        )
    return found


def subfolders(folder: Path) -> list[str]:
    """Return the names of the folders in a folder, sorted, without hidden ones.

    Raises:
        UserError: It cannot be listed, or holds links that lead nowhere.
    """
    problems: list[Problem] = []
    names = listed(str(folder), problems)[0]
    _refuse(problems)
    return names


def files_with(folder: Path, suffixes: Collection[str]) -> list[str]:
    """Return the files below a folder with these suffixes in any case, as sorted paths within it, with slashes.

    Raises:
        UserError: A folder cannot be listed, or holds links that lead nowhere.
    """
    problems: list[Problem] = []
    found = [Path(path) for path in files_below(str(folder), problems) if Path(path).suffix.lower() in suffixes]
    _refuse(problems)
    return sorted(path.relative_to(folder).as_posix() for path in found)


def images_below(folder: Path) -> list[str]:
    """Return the images below a folder, as `files_with` does."""
    return files_with(folder, IMAGE_SUFFIXES)


def _refuse(problems: Iterable[Problem]) -> None:
    for problem in problems:
        raise UserError(str(problem))


def sizes_of(images: Sequence[Path]) -> list[tuple[int, int]]:
    """Return width and height of some of the images; the data check names what cannot be opened."""
    sizes = []
    for place in np.unique(np.linspace(0, len(images) - 1, _LOOKED_AT).round().astype(int)) if images else ():
        try:
            with Image.open(images[place]) as image:
                sizes.append(image.size)
        except OSError:
            continue
    return sizes
