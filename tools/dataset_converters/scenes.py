"""Draw scenes: pictures of several cut-outs on a background, with the exact mask of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

SCENE_SIZE = 256
CUTOUTS_PER_SCENE = (2, 6)
MAX_HIDDEN = 0.6


class DataError(Exception):
    """The data cannot be written; the message says why and what to do."""


@dataclass(frozen=True)
class Cutout:
    """What is pasted.

    Attributes:
        label: Its class, from 0 on.
        mask: bool [h, w], the pixels that are its own.
        opacity: float [h, w] from 0 to 1, soft at the rim.
        colors: float [h, w, 3] from 0 to 255; None for one bright color, drawn when it is pasted.
    """

    label: int
    mask: np.ndarray
    opacity: np.ndarray
    colors: np.ndarray | None


class Split(Protocol):
    """What the scenes of training, or those of validation, are made of."""

    def background(self, rng: np.random.Generator) -> np.ndarray:
        """Return a picture to paste on, float64 [SCENE_SIZE, SCENE_SIZE, 3] from 0 to 255."""

    def cutout(self, rng: np.random.Generator) -> Cutout:
        """Return what is pasted next, in a random size and turn."""


@dataclass(frozen=True)
class Source:
    """What data sets are made of, and what they say about it.

    Attributes:
        classes: Names of the classes, by label.
        kind: What all of them are.
        description: What the scenes are.
        splits: ``train`` and ``val``.
        layouts: The layouts that can be made of it.
        record: What tells its data sets from those of other sources, beside the classes.
        license: Name and address of the license of the pictures; empty where nothing asks to be named.
        notes: Text files that lie beside the pictures, by name.
    """

    classes: tuple[str, ...]
    kind: str
    description: str
    splits: Mapping[str, Any]
    layouts: tuple[str, ...]
    record: Mapping[str, str] = field(default_factory=dict)
    license: Mapping[str, str] = field(default_factory=dict)
    notes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Scene:
    """A picture of several cut-outs.

    Attributes:
        image: uint8 [H, W, 3].
        instances: uint8 [H, W], 0 for the background, else 1 + the visible cut-out's place in ``labels``.
        labels: Class of each cut-out.
    """

    image: np.ndarray
    instances: np.ndarray
    labels: list[int]


def draw_scene(split: Split, rng: np.random.Generator) -> Scene:
    """Paste a few cut-outs at random places; none hides more than ``MAX_HIDDEN`` of another."""
    image = split.background(rng)
    instances = np.zeros((SCENE_SIZE, SCENE_SIZE), dtype=np.uint8)
    labels: list[int] = []
    areas: list[int] = []
    wanted = rng.integers(CUTOUTS_PER_SCENE[0], CUTOUTS_PER_SCENE[1] + 1)
    for _ in range(20 * wanted):
        if len(labels) == wanted:
            break
        cutout = split.cutout(rng)
        height, width = cutout.mask.shape
        top, left = rng.integers(0, (SCENE_SIZE - height, SCENE_SIZE - width))
        window = np.s_[top : top + height, left : left + width]
        after = instances.copy()
        after[window][cutout.mask] = len(labels) + 1
        visible = np.bincount(after.ravel(), minlength=len(labels) + 2)[1:]
        if any(left_over < (1 - MAX_HIDDEN) * area for left_over, area in zip(visible, areas, strict=False)):
            continue
        opacity = cutout.opacity[..., None]
        colors = rng.uniform(130, 255, 3) if cutout.colors is None else cutout.colors
        image[window] = image[window] * (1 - opacity) + colors * opacity
        instances = after
        labels.append(cutout.label)
        areas.append(int(cutout.mask.sum()))
    return Scene(np.clip(image, 0, 255).astype(np.uint8), instances, labels)
