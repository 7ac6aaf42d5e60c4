"""Stamps of the drawing program Tux Paint, which are photographs of things cut out, on parts of other photographs."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from scenes import SCENE_SIZE, Cutout, DataError, Source
from sklearn.datasets import load_sample_images
from sklearn.model_selection import train_test_split

FOLDER = Path('/usr/share/tuxpaint/stamps')
# The folders of each class; a folder within another's counts for its own class alone.
CLASS_FOLDERS = {
    'mammal': ('animals/mammals', 'animals/marsupials'),
    'bird': ('animals/birds',),
    'sea animal': ('animals/fish', 'animals/shellfish', 'animals/mammals/aquatic'),
    'plant': ('plants',),
    'food': ('food', 'plants/mushrooms'),
    'household': ('household',),
    'instrument': ('hobbies/music',),
    'vehicle': ('vehicles', 'military/vehicles'),
}
CLASSES = tuple(CLASS_FOLDERS)
# Drawings lie in folders of these names, and a few among the photographs.
_DRAWN_FOLDERS = {'cartoon', 'plastic', 'toys'}
_DRAWN = {
    'animals/mammals/echidna.png', 'animals/mammals/hedgehog.png', 'food/pizza.png',
    'household/arttools/highlighter.png', 'household/key.png',
}  # fmt: skip
# Wheels alone, and what is painted over a car.
_PARTS = {'vehicles/7spoke256.png', 'vehicles/wheel_tractor.png', 'vehicles/emergency/sedan_police.png'}
# Another side of a stamp of the same name: it must not be in the other split.
_OTHER_SIDES = ('_mirror', '_flip')
# Fewer in a class cannot be split, because a fifth of them must be one at least.
_FEWEST = 5
_SMALLEST = 24
_LEAST_COVERED = 0.05
_SIDES = (48, 121)
_MOST_ENLARGED = 2
# Left, top, right and bottom of what shows none of the classes in china.jpg and in flower.jpg.
_BACKGROUNDS = (
    (0, (75, 0, 360, 280)), (0, (260, 0, 545, 280)),
    (1, (0, 0, 165, 427)), (1, (450, 0, 640, 370)),
)  # fmt: skip
_SMALLEST_BACKGROUND = 96

LICENSE = {
    'name': 'Cut-outs: Tux Paint Stamps, GNU GPL version 2. Backgrounds: danielbuechele and vultilion, CC BY 2.0.',
    'url': 'https://www.gnu.org/licenses/old-licenses/gpl-2.0.html',
}
_SOURCES = """The pictures in this folder are made of

- cut-outs of Tux Paint Stamps (Debian's package tuxpaint-stamps-default, https://tuxpaint.org),
  Copyright 2002-2022 Bill Kendrick and contributors, GNU General Public License, version 2
  (https://www.gnu.org/licenses/old-licenses/gpl-2.0.html): resized, mirrored and turned.
- parts of two photographs that scikit-learn ships, china.jpg by danielbuechele and flower.jpg by vultilion, both
  Creative Commons Attribution 2.0 (https://creativecommons.org/licenses/by/2.0/): enlarged, turned, colors exchanged.

Who passes the pictures on does so under these licenses.
"""


@dataclass(frozen=True)
class Stamp:
    """A cut-out: its place below the folder of stamps, its class, and the picture with alpha, without empty rims."""

    name: str
    label: int
    picture: Image.Image


@dataclass(frozen=True)
class Stamps:
    """Stamps of one split, by class, and the photographs to paste them on."""

    by_class: Sequence[Sequence[Stamp]]
    photographs: Sequence[np.ndarray]

    def background(self, rng: np.random.Generator) -> np.ndarray:
        """Return a part of a photograph, enlarged, turned and in exchanged colors."""
        photograph, (left, top, right, bottom) = _BACKGROUNDS[rng.integers(len(_BACKGROUNDS))]
        largest = min(right - left, bottom - top, SCENE_SIZE)
        side = int(rng.integers(_SMALLEST_BACKGROUND, largest + 1))
        x, y = rng.integers((left, top), (right - side + 1, bottom - side + 1))
        part = self.photographs[photograph][y : y + side, x : x + side]
        part = np.rot90(part, rng.integers(4))[:, :: rng.choice([-1, 1]), rng.permutation(3)]
        enlarged = Image.fromarray(np.ascontiguousarray(part)).resize(
            (SCENE_SIZE, SCENE_SIZE), Image.Resampling.BICUBIC
        )
        return np.asarray(enlarged, dtype=np.float64)

    def cutout(self, rng: np.random.Generator) -> Cutout:
        """Return a stamp of random class, size, side and turn; every class is as frequent."""
        stamps = self.by_class[rng.integers(len(self.by_class))]
        stamp = stamps[rng.integers(len(stamps))]
        longest = max(stamp.picture.size)
        scale = min(int(rng.integers(*_SIDES)), _MOST_ENLARGED * longest) / longest
        picture = stamp.picture.resize([max(1, round(scale * side)) for side in stamp.picture.size])
        if rng.random() < 0.5:
            picture = ImageOps.mirror(picture)
        picture = picture.rotate(rng.uniform(-20, 20), Image.Resampling.BICUBIC, expand=True)
        pixels = np.asarray(picture, dtype=np.float64)
        opacity = pixels[..., 3] / 255
        return Cutout(stamp.label, opacity >= 0.5, opacity, pixels[..., :3])


def stamps_source(folder: Path, seed: int) -> Source:
    """Return the photographs among the stamps of a folder as ``train`` and ``val``; no stamp is in both.

    Raises:
        DataError: It is no folder of stamps, a file is torn, or a class has too few.
    """
    stamps = list(_read(folder))
    labels = [stamp.label for stamp in stamps]
    for label, (name, folders) in enumerate(CLASS_FOLDERS.items()):
        if labels.count(label) < _FEWEST:
            raise DataError(
                f'{folder} has {labels.count(label)} photographs of the class {name} (in {", ".join(folders)}), and '
                f'{_FEWEST} are needed: name the folder of the whole package by --stamps FOLDER.'
            )
    parts = train_test_split(stamps, test_size=0.2, stratify=labels, random_state=seed)
    photographs = load_sample_images().images
    splits: dict[str, Stamps] = {}
    notes = [_SOURCES]
    for split, part in zip(('train', 'val'), parts, strict=True):
        ordered = sorted(part, key=lambda stamp: stamp.name)
        by_class = [[stamp for stamp in ordered if stamp.label == label] for label in range(len(CLASSES))]
        splits[split] = Stamps(by_class, photographs)
        for name, members in zip(CLASSES, by_class, strict=True):
            notes.append(f'{split}, {name}: {", ".join(stamp.name for stamp in members)}\n')
    return Source(
        classes=CLASSES,
        kind='thing',
        description=f'scenes of photographs. {LICENSE["name"]}',
        splits=splits,
        layouts=('coco', 'ade20k'),
        record={'source': 'stamps', 'stamps': _digest(stamps)},
        license=LICENSE,
        notes={'SOURCES.txt': '\n'.join(notes)},
    )


def _read(folder: Path) -> Iterator[Stamp]:
    if not folder.is_dir():
        raise DataError(
            f'{folder} is no folder: `apt install tuxpaint-stamps-default` brings {FOLDER} (Debian, Ubuntu), or name '
            'another folder of stamps by --stamps FOLDER.'
        )
    seen: set[bytes] = set()
    for path in sorted(folder.rglob('*.png')):
        name = path.relative_to(folder).as_posix()
        label = _label(name)
        if label is None or not _is_photograph(name):
            continue
        picture = _trimmed(path)
        # One photograph may lie in several folders.
        content = b'' if picture is None else hashlib.sha256(picture.tobytes()).digest()
        if picture is not None and content not in seen:
            seen.add(content)
            yield Stamp(name, label, picture)


def _label(name: str) -> int | None:
    """Return the class of the deepest folder that has one."""
    places = {place: label for label, places in enumerate(CLASS_FOLDERS.values()) for place in places}
    return next((places[str(parent)] for parent in Path(name).parents if str(parent) in places), None)


def _is_photograph(name: str) -> bool:
    path = Path(name)
    return not (name in _DRAWN | _PARTS or _DRAWN_FOLDERS & set(path.parts) or path.stem.endswith(_OTHER_SIDES))


def _trimmed(path: Path) -> Image.Image | None:
    """Return what a stamp shows with its alpha, or None where it is too small, mostly see-through, or not cut out."""
    try:
        with Image.open(path) as file:
            if not file.has_transparency_data:
                return None
            picture = file.convert('RGBA')
    except OSError as error:
        raise DataError(f'{path} cannot be read: {error}.') from error
    covered = np.asarray(picture)[..., 3] >= 128
    rows, columns = covered.any(axis=1).nonzero()[0], covered.any(axis=0).nonzero()[0]
    if len(rows) == 0:
        return None
    box = (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
    inside = covered[box[1] : box[3], box[0] : box[2]]
    if max(inside.shape) < _SMALLEST or inside.mean() < _LEAST_COVERED:
        return None
    return picture.crop(box)


def _digest(stamps: Sequence[Stamp]) -> str:
    """Return what tells these stamps from others."""
    digest = hashlib.sha256()
    for stamp in stamps:
        digest.update(f'{stamp.name} {stamp.label} {stamp.picture.size}'.encode())
        digest.update(stamp.picture.tobytes())
    return digest.hexdigest()
