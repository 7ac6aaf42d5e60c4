"""Photographs that scikit-learn and matplotlib bring, cut out and laid out as users have data of the image tasks."""

import json
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
import sklearn.datasets
from PIL import Image

_IMAGES = {
    'Türme & Dächer': Path(sklearn.datasets.__file__).parent / 'images' / 'china.jpg',
    'Blüte': Path(sklearn.datasets.__file__).parent / 'images' / 'flower.jpg',
    'Frau im Dienst': Path(matplotlib.get_data_path()) / 'sample_data' / 'grace_hopper.jpg',
}
# Left, top, right and bottom of what each shows.
_BOXES = ((63, 31, 373, 427), (169, 84, 446, 360), (156, 23, 373, 333))
CLASSES = tuple(_IMAGES)
# Mode and ending; every kind occurs upright and lying.
_KINDS = (('RGB', '.jpg'), ('L', '.png'), ('RGBA', '.png'), ('RGB', '.JPG'))


class Cut(NamedTuple):
    """A part of a photograph.

    Attributes:
        name: Its file's name, with an umlaut, spaces and what HTML and addresses escape.
        image: The picture, RGB, gray or with alpha.
        label: Which photograph it is of.
        box: What the photograph shows, x and y of the corner, width and height.
    """

    name: str
    image: Image.Image
    label: int
    box: tuple[int, int, int, int]


def cuts(count, shrink=5):
    """Parts of each photograph, upright and lying by turns.

    Args:
        count: How many of each.
        shrink: How many pixels of a side become one.
    """
    found = []
    for label, path in enumerate(_IMAGES.values()):
        with Image.open(path) as file:
            # A color profile of RGB does not fit a gray picture.
            whole = Image.fromarray(np.asarray(file.convert('RGB')))
        for i in range(count):
            sides = (320, 416) if i % 2 else (416, 320)
            random = np.random.default_rng(100 * label + i)
            room = np.subtract(whole.size, sides)
            left, top = (int(place) for place in random.integers(0, room + 1))
            image = whole.crop((left, top, left + sides[0], top + sides[1])).reduce(shrink)
            x0, y0, x1, y1 = (place - start for place, start in zip(_BOXES[label], (left, top) * 2, strict=True))
            x0, y0 = max(x0, 0) // shrink, max(y0, 0) // shrink
            box = (x0, y0, min(x1 // shrink, image.width) - x0, min(y1 // shrink, image.height) - y0)
            mode, ending = _KINDS[(i + label) % 4]
            image = image.convert(mode)
            if mode == 'RGBA':
                # What is cut free has transparent corners.
                image.putalpha(Image.radial_gradient('L').resize(image.size).point(lambda far: 255 * (far < 240)))
            found.append(Cut(f'Größe {label}{i} #1 & 50%{ending}', image, label, box))
    return found


def save(image, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, {'.jpg': 'JPEG', '.png': 'PNG'}[path.suffix.lower()])


def class_folders(folder, found):
    """A folder of images for each class."""
    for cut in found:
        save(cut.image, folder / CLASSES[cut.label] / cut.name)


def coco(folder, found):
    """A COCO file with a box and a polygon for each image."""
    categories = [{'id': i, 'name': name} for i, name in enumerate(CLASSES)]
    content = {'images': [], 'annotations': [], 'categories': categories}
    for i, cut in enumerate(found):
        save(cut.image, folder / 'Bilder ä' / cut.name)
        content['images'].append({'id': i, 'file_name': cut.name, 'width': cut.image.width, 'height': cut.image.height})
        x, y, width, height = cut.box
        polygon = [x, y, x + width, y, x + width, y + height, x, y + height]
        entry = {'id': i + 1, 'image_id': i, 'category_id': cut.label, 'bbox': cut.box, 'iscrowd': 0}
        content['annotations'].append(entry | {'area': width * height, 'segmentation': [polygon]})
    (folder / 'labels.json').write_text(json.dumps(content))


def label_maps(folder, found):
    """Images with label maps, 0 around what they show, and the list of the classes."""
    for cut in found:
        save(cut.image, folder / 'images' / cut.name)
        labels = np.zeros((cut.image.height, cut.image.width), np.uint8)
        x, y, width, height = cut.box
        labels[y : y + height, x : x + width] = cut.label + 1
        save(Image.fromarray(labels), folder / 'masks' / Path(cut.name).with_suffix('.png').name)
    (folder / 'classes.txt').write_text('\n'.join(['nichts', *CLASSES]) + '\n', encoding='utf-8')
