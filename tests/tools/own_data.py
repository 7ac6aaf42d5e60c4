"""Made-up data of all four tasks, with names and files as users have them."""

import json

import h5py
import numpy as np
from PIL import Image, ImageDraw

SIZE = (96, 64)


def drawn(seed, label):
    """An image with one shape, a circle (1) or a square (2), and its label map."""
    rng = np.random.default_rng(seed)
    image = Image.fromarray(rng.integers(0, 60, (SIZE[1], SIZE[0], 3), dtype=np.uint8))
    labels = Image.new('L', image.size)
    x, y = (int(v) for v in rng.integers(4, 24, 2))
    for canvas, fill in ((image, (230, 60, 60 * label)), (labels, label)):
        pen = ImageDraw.Draw(canvas)
        (pen.ellipse if label == 1 else pen.rectangle)((x, y, x + 30, y + 30), fill=fill)
    return image, labels


def save(image, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, {'.jpg': 'JPEG', '.png': 'PNG'}[path.suffix.lower()])


def class_folders(folder, count=8, classes=('Bär', 'zwei Hunde')):
    """Photos in class folders: gray and with alpha, suffixes of both cases, spaces and umlauts."""
    for label, name in enumerate(classes):
        for i in range(count):
            image = drawn(i, label % 2 + 1)[0].convert(('RGB', 'L', 'RGBA')[i % 3])
            suffix = '.png' if image.mode == 'RGBA' else '.jpg'
            save(image, folder / name / f'Photo ä {i}{suffix.upper() if i % 2 else suffix}')


def coco(folder, seeds=range(8), name='labels.json', masks=True, images='Bilder ü'):
    """Shapes with boxes, and with polygons where masks are wanted."""
    content = {'images': [], 'annotations': [], 'categories': []}
    content['categories'] = [{'id': i, 'name': n} for i, n in ((1, 'shapes'), (7, 'circle'), (9, 'square'))]
    for seed in seeds:
        image, labels = drawn(seed, seed % 2 + 1)
        file = f'{seed} a{".JPG" if seed % 3 else ".jpg"}'
        save(image, folder / images / file)
        content['images'].append({'id': seed, 'file_name': file, 'height': SIZE[1], 'width': SIZE[0]})
        rows, cols = np.nonzero(np.asarray(labels))
        x, y, w, h = (int(v) for v in (cols.min(), rows.min(), np.ptp(cols) + 1, np.ptp(rows) + 1))
        entry = {'id': seed + 1, 'image_id': seed, 'category_id': 7 + 2 * (seed % 2), 'bbox': [x, y, w, h]}
        entry |= {'area': w * h, 'iscrowd': 0}
        if masks:
            entry['segmentation'] = [[x, y, x + w, y, x + w, y + h, x, y + h]]
        content['annotations'].append(entry)
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(content))


def label_maps(folder, seeds=range(8), phase='', first=0, images='images', maps='masks', suffixes=('.jpg', '.JPG')):
    """Shapes with label maps, the background in them having the label ``first``."""
    for seed in seeds:
        image, labels = drawn(seed, seed % 2 + 1)
        save(image, folder / images / phase / f'ö {seed}{suffixes[seed % len(suffixes)]}')
        labels = Image.fromarray(np.asarray(labels) + np.uint8(first))
        save(labels, folder / maps / phase / f'ö {seed}.PNG')


def point(seed, label, count=300):
    """A sphere or a cube far from the origin, as points."""
    points = np.random.default_rng(seed).normal(size=(count, 3))
    points /= np.linalg.norm(points, axis=1, keepdims=True) if label else np.abs(points).max(axis=1, keepdims=True)
    return points * 40 + 7000


def point_files(folder, count=8):
    """Clouds and meshes in class folders, in all formats."""
    import trimesh

    for label, name in enumerate(('Kugel', 'würfel')):
        (folder / name).mkdir(parents=True)
        for i in range(count):
            file = folder / name / f'teil {i}'
            if i % 4 == 0:
                np.save(file.with_suffix('.npy'), point(i, label))
            elif i % 4 == 1:
                np.savetxt(file.with_suffix('.XYZ'), point(i, label))
            elif i % 4 == 2:
                trimesh.PointCloud(point(i, label)).export(str(file.with_suffix('.ply')))
            else:
                mesh = trimesh.creation.icosphere() if label else trimesh.creation.box()
                mesh.export(str(file.with_suffix('.off')))


def hdf5(path, count=16, points=256):
    """Spheres and cubes as the h5 layout has them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    clouds = [(point(i, i % 2, points) - 7000) / 70 for i in range(count)]
    with h5py.File(path, 'w') as file:
        file['data'] = np.float32(clouds)
        file['label'] = np.arange(count) % 2
