"""What is wrong with clouds and their labels, or keeps them from being split."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coc_core.errors import UserError
from coc_core.mm.data_checks.problems import Level, Problem

# How many points that are one, and which share of a cloud, are no chance.
_FEW, _FILLED = 8, 0.1
# How widely the points that are taken spread along an axis beside all points: in random order as widely.
_NARROW = 0.75
_LOOKED_AT = 256


def content_problems(path: Path, points: NDArray[Any], labels: NDArray[Any], classes: int) -> list[Problem]:
    """Return the labels that stand for no class, and the clouds whose coordinates are no numbers."""
    if not points.size:
        return [Problem(str(path), f'holds {len(points)} clouds of {points.shape[1]} points: there is nothing in it')]
    wrong = np.flatnonzero((labels < 0) | (labels >= classes))
    problems = [
        Problem(f'{path}, cloud {i},', f'has the label {labels[i]}, but there are {classes} classes, from 0')
        for i in wrong
    ]
    broken = np.flatnonzero(~np.isfinite(points).all(axis=(1, 2)))
    for i in broken:
        point = int(np.flatnonzero(~np.isfinite(points[i]).all(axis=1))[0])
        what = f'has coordinates that are no numbers: point {point} is {points[i, point].tolist()}'
        problems.append(Problem(f'{path}, cloud {i},', what))
    return problems


def place_problems(path: Path, points: NDArray[Any], anywhere: bool = False) -> Iterator[Problem]:
    """Yield the clouds that are far from the origin or small for what the augmentation shifts them by.

    Augmentation scales about the origin and shifts by up to 0.2, and a model takes coordinates as they are:
    docs/point-clouds.md has what training makes of such clouds. One without extent does no harm, and shows no shape.

    Args:
        path: The file that they came from.
        points: Finite coordinates [N, P, 3].
        anywhere: Whether the pipeline moves and scales clouds: then their place and size matter only where float32 has
            lost their shape.
    """
    lows, highs = points.min(axis=1).astype(np.float64), points.max(axis=1).astype(np.float64)
    centers, radii = (lows + highs) / 2, (highs - lows).max(axis=1) / 2
    flat = np.flatnonzero(radii == 0)
    if len(flat):
        what = f'has {len(flat)} clouds whose points are all the same, first cloud {flat[0]}: they show no shape'
        yield Problem(str(path), what, level='warning')
    distances = np.abs(centers).max(axis=1) / np.maximum(radii, 1)
    smallness = np.divide(1, radii, out=np.zeros_like(radii), where=radii > 0)
    limits: tuple[tuple[str, NDArray[Any], float, float], ...] = (
        ('far from the origin', distances, 2, 10),
        ('too small for the augmentation', smallness, 10, 100),
    )
    if anywhere:
        spacing = np.spacing(np.abs(centers).max(axis=1).astype(points.dtype)) * smallness
        limits = (('so far from the origin that their coordinates have few digits left', spacing, 1e-3, 1e-2),)
    for what, measured, tolerable, hopeless in limits:
        found = np.flatnonzero(measured > tolerable)
        if len(found):
            first = found[0]
            center = ', '.join(f'{value:.6g}' for value in centers[first])
            which = f'{len(found)} clouds {what}, first cloud {first} of radius {radii[first]:.2g} at ({center})'
            remedy = 'subtract its center from each cloud, in float64, and divide by its radius'
            level: Level = 'error' if measured.max() >= hopeless else 'warning'
            yield Problem(str(path), f'has {which}: {remedy}', level)


def filling_problems(path: Path, points: NDArray[Any]) -> Iterator[Problem]:
    """Yield the clouds, [N, P, 3], that are filled up with one point, whose place and weight are not the shape's."""
    # What fills up stands at the end. Points that are all the same are told as such.
    count = (points == points[:, -1:]).all(axis=2).sum(axis=1)
    share = count / points.shape[1]
    found = np.flatnonzero((count >= _FEW) & (share > _FILLED) & (share < 1))
    if len(found):
        what = f'{len(found)} clouds that are filled up with one point, first cloud {found[0]} to {share[found[0]]:.0%}'
        yield Problem(str(path), f'has {what}: fill them up with points of their own, drawn again', level='warning')


def order_problems(path: Path, points: NDArray[Any], taken: int) -> Iterator[Problem]:
    """Yield that the first points of most clouds show a part of the shape alone, as in the order of a scan.

    Args:
        path: The file.
        points: Finite coordinates [N, P, 3].
        taken: How many the pipeline takes; 0: all.
    """
    some = points[np.unique(np.linspace(0, len(points) - 1, _LOOKED_AT).round().astype(int))].astype(np.float64)
    whole, part = some.std(axis=1), some[:, : taken or None].std(axis=1)
    share = np.divide(part, whole, out=np.ones_like(whole), where=whole > 0).min(axis=1)
    if np.median(share) < _NARROW:
        what = f'the first {taken} of {points.shape[1]} points of most clouds lie in a part of the shape'
        yield Problem(str(path), f'has an order of points by which {what}: shuffle the points of each cloud', 'warning')


def digest(points: NDArray[Any]) -> bytes:
    """Return what tells a cloud from others."""
    return hashlib.blake2b(points.tobytes(), digest_size=16).digest()


def split(
    labels: NDArray[Any], classes: Sequence[str], keep: str, fraction: float = 0.1, seed: int = 0
) -> NDArray[Any]:
    """Return the places of one side of a stratified split, in order.

    Args:
        labels: The label of each cloud, int64 [N].
        classes: The names of the classes.
        keep: ``'train'`` or ``'val'``.
        fraction: The validation side's share.
        seed: Which split.

    Raises:
        UserError: An argument is impossible, a class has one cloud alone, or a side has fewer clouds than classes.
    """
    from sklearn.model_selection import train_test_split

    if keep not in ('train', 'val'):
        raise UserError(f"validation.keep={keep!r} must be 'train' or 'val'.")
    if not 0 < fraction < 1:
        raise UserError(f'validation.fraction={fraction} must be between 0 and 1.')
    counts = np.bincount(labels)
    single = np.flatnonzero(counts == 1)
    if len(single):
        raise UserError(
            f'validation: the class {classes[single[0]]!r} has one cloud, and a stratified split needs two of each '
            'class: add one, take the class out, or leave validation out.'
        )
    present, held_back = np.count_nonzero(counts), int(np.ceil(fraction * len(labels)))
    for side, clouds in (('validation', held_back), ('training', len(labels) - held_back)):
        if clouds < present:
            raise UserError(
                f'validation.fraction={fraction} of {len(labels)} clouds leaves {clouds} for {side}, fewer than there '
                f'are classes ({present}): choose a {"larger" if side == "validation" else "smaller"} one.'
            )
    train, val = train_test_split(np.arange(len(labels)), test_size=fraction, stratify=labels, random_state=seed)
    return np.sort(train if keep == 'train' else val)
