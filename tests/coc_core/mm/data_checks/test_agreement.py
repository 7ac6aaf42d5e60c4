"""What check_data.py passes trains and measures right; what would stop or mislead a training, it has said."""

import json
from importlib import metadata
from pathlib import Path

import agreement
import h5py
import numpy as np
import pytest
from agreement import SIZE, Classification, Detection, PointClouds, Segmentation, pixels, save
from PIL import Image

CAT = Path('data/train/cat')
ORIENTATION = 274


def turned(path, orientation):
    """Write a picture that is stored sideways or upside down and says so."""
    with Image.open(path) as image:
        exif = image.getexif()
        exif[ORIENTATION] = orientation
        image.save(path, exif=exif)


def suffix(new, **options):
    def change(folder):
        for path in list((folder / 'data').rglob('*.png')):
            with Image.open(path) as image:
                image.save(path.with_suffix(new), **options)
            path.unlink()

    return change


def write(path, content):
    return lambda folder: (folder / path).write_bytes(content)


def cut(path, share=0.5):
    return lambda folder: (folder / path).write_bytes((folder / path).read_bytes()[: int(share * 600)])


def first_picture(array, **options):
    return lambda folder: save(folder / CAT / '0.png', array, **options)


def listed(lines, split='train'):
    """Have a text list name the classes of pictures."""

    def change(folder):
        for part in ('train', 'val'):
            names = sorted((folder / 'data' / part).glob('*/*.png'))
            good = [f'{path.parent.name}/{path.name} {int(path.parent.name == "dog")}' for path in names]
            (folder / 'data' / f'{part}.txt').write_text('\n'.join(lines(good) if part == split else good))
        return (
            "_meta = dict(classes=['cat', 'dog'])\n"
            "train_dataloader = dict(dataset=dict(ann_file='train.txt', metainfo=_meta))\n"
            "val_dataloader = dict(dataset=dict(ann_file='val.txt', metainfo=_meta))\n"
            'test_dataloader = val_dataloader\n'
        )

    return change


def classes(*names):
    return lambda folder: (
        f'_meta = dict(classes={list(names)})\n'
        'train_dataloader = dict(dataset=dict(metainfo=_meta))\n'
        'val_dataloader = dict(dataset=dict(metainfo=_meta))\n'
        'test_dataloader = val_dataloader\n'
    )


def endings(*names):
    return lambda folder: (
        f'train_dataloader = dict(dataset=dict(extensions={names}))\n'
        f'val_dataloader = dict(dataset=dict(extensions={names}))\n'
        'test_dataloader = val_dataloader\n'
    )


def both(*changes):
    def change(folder):
        return '\n'.join(filter(lambda text: isinstance(text, str), (one(folder) for one in changes)))

    return change


GRAY = pixels(1)[..., 0]
CLASSIFICATION = {
    'plain': (None, None),
    'gray': (first_picture(GRAY), None),
    'with transparency': (first_picture(np.dstack([pixels(1), GRAY])), None),
    '16 bits': (first_picture(GRAY.astype(np.uint16) * 257), None),
    'jpeg': (suffix('.jpg'), None),
    'webp': (both(suffix('.webp'), endings('.webp')), None),
    'upper case': (suffix('.JPG', format='JPEG'), None),
    'a turned photo': (both(suffix('.jpg'), lambda folder: turned(folder / CAT / '0.jpg', 6)), None),
    'a hidden file': (write(CAT / '.DS_Store', b'junk'), None),
    'a folder below a class': (
        lambda folder: (folder / CAT / '2020').mkdir() or (folder / CAT / '0.png').rename(folder / CAT / '2020/0.png'),
        None,
    ),
    'classes in order': (classes('cat', 'dog'), None),
    'a list': (listed(lambda lines: lines), None),
    'bytes behind the end': (
        both(suffix('.jpg'), lambda folder: (folder / CAT / '0.jpg').open('ab').write(bytes(300_000))),
        None,
    ),
    'classes the other way round': (classes('dog', 'cat'), 'order|dog, cat'),
    'too many classes': (classes('cat', 'dog', 'eagle'), 'eagle|classes'),
    'another folder in val': (
        lambda folder: (folder / 'data/val/cat').rename(folder / 'data/val/eagle'), 'eagle',
    ),
    'a folder more in val': (
        lambda folder: save(folder / 'data/val/eagle/0.png', pixels(3)), 'eagle',
    ),
    'an empty class': (lambda folder: [path.unlink() for path in (folder / CAT).iterdir()], 'cat'),
    'a torn picture': (cut(CAT / '0.png'), r'0\.png'),
    'an empty picture': (write(CAT / '0.png', b''), r'0\.png'),
    'a text': (write(CAT / '0.png', b'not found'), r'0\.png'),
    'a float TIFF': (
        both(lambda folder: Image.fromarray(np.float32(GRAY)).save(folder / CAT / 'x.tiff'), endings('.png', '.tiff')),
        r'x\.tiff',
    ),
    'a head of other classes': (lambda folder: 'model = dict(head=dict(num_classes=3))\n', r'head.num_classes=3'),
    'mixing other classes': (
        lambda folder: 'model = dict(data_preprocessor=dict(num_classes=5))\n', r'data_preprocessor.num_classes=5',
    ),
    'no batch': (
        lambda folder: 'train_dataloader = dict(batch_size=64, drop_last=True)\n', 'makes no batch',
    ),
    'a label too high in a list': (listed(lambda lines: [*lines[:-1], lines[-1][:-1] + '2']), 'label|2'),
    'a label that is none in a list': (listed(lambda lines: [*lines[:-1], lines[-1][:-1] + 'dog']), 'dog'),
    'a file too many in a list': (listed(lambda lines: [*lines, 'dog/nowhere.png 1']), r'nowhere\.png'),
    'a class without a sample in a list': (listed(lambda lines: [line for line in lines if line[-1] == '0']), 'dog'),
}  # fmt: skip


def map_of(array, split='train', **options):
    return lambda folder: save(folder / 'data/maps' / split / '0.png', array, **options)


def palette(folder):
    for path in (folder / 'data/maps').rglob('*.png'):
        with Image.open(path) as image:
            colored = Image.fromarray(np.asarray(image)).convert('P')
        colored.putpalette([value for index in range(256) for value in (index, 255 - index, 7 * index % 256)])
        colored.putdata(Segmentation.labels().ravel().tolist())
        colored.save(path)


def all_maps(array):
    return lambda folder: [save(path, array) for path in (folder / 'data/maps').rglob('*.png')]


LABELS = Segmentation.labels()
WEIGHTS = 'model = dict(decode_head=dict(loss_decode=dict(class_weight={})))\n'
# In the upstream family mmseg's own loss stops with weights where a pixel counts for nothing: docs/dense-tasks.md.
WEIGHTED = (
    WEIGHTS
    if metadata.version('mmsegmentation') != '1.2.2'
    else WEIGHTS.replace('class_weight', "_delete_=True, type='WeightedCrossEntropyLoss', class_weight")
)
SEGMENTATION = {
    'plain': (None, None),
    'nothing but what counts': (all_maps(np.where(LABELS == 255, 0, LABELS).astype(np.uint8)), None),
    'palettes': (palette, None),
    'gray pictures': (lambda folder: save(folder / 'data/images/train/0.jpg', GRAY), None),
    'one weight a class': (lambda folder: WEIGHTED.format([0.1, 1.0, 1.0]), None),
    'a class in some maps alone': (map_of(np.zeros_like(LABELS)), None),
    'a class in no map': (all_maps(np.where(LABELS == 2, 255, LABELS).astype(np.uint8)), 'dog'),
    'nothing but nothing': (all_maps(np.where(LABELS == 255, 255, 0).astype(np.uint8)), 'cat, dog'),
    'a label too high': (map_of(np.where(LABELS == 2, 3, LABELS).astype(np.uint8)), 'labels 3'),
    '16 bits': (map_of(np.where(LABELS == 2, 258, LABELS.astype(np.uint16)).astype(np.uint16)), '258'),
    'colors': (map_of(np.dstack([LABELS] * 3)), 'channels'),
    'another size': (map_of(LABELS[:20]), '32x20'),
    'no map': (lambda folder: (folder / 'data/maps/train/0.png').unlink(), 'no label map'),
    'a torn map': (lambda folder: (folder / 'data/maps/train/0.png').write_bytes(
        (folder / 'data/maps/train/0.png').read_bytes()[:60]), r'0\.png'),
    'a torn picture': (cut('data/images/train/0.jpg'), r'0\.jpg'),
    'a turned photo of another shape': (
        both(lambda folder: save(folder / 'data/images/train/0.jpg', pixels(1)[:20]),
             lambda folder: save(folder / 'data/maps/train/0.png', LABELS[:20]),
             lambda folder: turned(folder / 'data/images/train/0.jpg', 6)), '32x20|20x32'),
    'weights of other classes': (lambda folder: WEIGHTS.format([1.0] * 11), 'class_weight'),
    'a head of other classes': (lambda folder: 'model = dict(decode_head=dict(num_classes=4))\n', 'num_classes=4'),
    'no pictures': (lambda folder: 'train_dataloader = dict(dataset=dict(img_suffix=".bmp"))\n', 'bmp'),
}  # fmt: skip


def annotations(change, split='train'):
    """Change the content of an annotation file."""

    def apply(folder):
        path = folder / 'data' / f'{split}.json'
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))

    return apply


def segmentation(value):
    return annotations(lambda content: content['annotations'][0].update(segmentation=value))


def crowd(*numbers):
    def change(content):
        for entry in content['annotations']:
            if not numbers or entry['id'] in numbers:
                entry.update(iscrowd=1, segmentation=Detection.compressed(entry['bbox']))

    return annotations(change)


UNCOMPRESSED = dict(size=[SIZE, SIZE], counts=[100, 8, 24, 8, SIZE * SIZE - 140])
DETECTION = {
    'plain': (None, None),
    'two polygons': (segmentation([[2, 3, 12, 3, 12, 11], [2, 3, 2, 11, 12, 11]]), None),
    'compressed runs': (segmentation(Detection.compressed([2, 3, 10, 8])), None),
    'runs': (segmentation(UNCOMPRESSED), None),
    'a crowd among others': (crowd(1), None),
    'a picture of nothing': (
        annotations(lambda content: content.update(annotations=content['annotations'][2:])), None),
    'a box of nothing': (
        annotations(lambda content: content['annotations'][0].update(bbox=[2, 3, 0.2, 0.2], area=0.04)), None),
    'a category too many': (
        annotations(lambda content: content['categories'].append(dict(id=30, name='bird'))), None),
    'nothing but crowds': (crowd(), 'crowd'),
    'crowds of one class': (crowd(2, 4, 6, 8), 'dog'),
    'a polygon of one point': (segmentation([[4, 5]]), 'annotation 1'),
    'an empty polygon': (segmentation([[]]), 'annotation 1'),
    'a polygon of two points': (segmentation([[4, 5, 8, 9]]), 'annotation 1'),
    'a flat polygon': (segmentation([2, 3, 12, 3, 12, 11, 2, 11]), 'annotation 1'),
    'an odd polygon': (segmentation([[2, 3, 12, 3, 12, 11, 2]]), 'annotation 1'),
    'a polygon of no numbers': (segmentation([[2, 3, float('nan'), 3, 12, 11]]), 'annotation 1'),
    'nested points': (segmentation([[[2, 3], [12, 3], [12, 11]]]), 'annotation 1'),
    'runs of nothing': (segmentation(dict(size=[SIZE, SIZE], counts=None)), 'annotation 1'),
    'runs of another size': (segmentation(Detection.compressed([2, 3, 10, 8], size=20)), 'annotation 1'),
    'runs that end early': (segmentation(dict(size=[SIZE, SIZE], counts=[100, 8])), 'annotation 1'),
    'no segmentation': (annotations(lambda content: content['annotations'][0].pop('segmentation')), 'segmentation'),
    'a box of words': (
        annotations(lambda content: content['annotations'][0].update(bbox=['a', 3, 10, 8])), 'annotation 1'),
    'a class without an object': (
        annotations(lambda content: content.update(annotations=content['annotations'][::2])), 'dog'),
    'an unknown category': (
        annotations(lambda content: content['annotations'][0].update(category_id=7)), 'category 7'),
    'an unknown picture': (annotations(lambda content: content['annotations'][0].update(image_id=9)), 'image 9'),
    'a repeated number': (annotations(lambda content: content['annotations'][1].update(id=1)), 'more than once'),
    'categories the other way round': (
        annotations(lambda content: content['categories'].reverse()), 'order'),
    'another size': (annotations(lambda content: content['images'][0].update(width=40)), '32x32'),
    'a picture that is not there': (
        lambda folder: (folder / 'data/images/train/0.jpg').unlink(), 'does not exist'),
    'a turned photo': (
        both(lambda folder: save(folder / 'data/images/train/0.jpg', pixels(1)[:28]),
             annotations(lambda content: content['images'][0].update(height=28)),
             lambda folder: turned(folder / 'data/images/train/0.jpg', 6)), '28x32'),
    'a head of other classes': (lambda folder: 'model = dict(num_classes=3)\n', 'num_classes=3'),
    'no annotation': (annotations(lambda content: content.update(annotations=[])), 'annotations'),
}  # fmt: skip


def clouds(labels=None, change=lambda array: array, part='training'):
    labels = np.arange(24) % 3 if labels is None else np.asarray(labels, dtype=np.int64)
    return lambda folder: PointClouds.write(None, folder, part, labels, change(PointClouds.clouds(labels)))


def changed(index, value):
    def change(array):
        array[index] = value
        return array

    return change


SPLIT = (
    "_split = dict(fraction=0.5)\ntrain_dataloader = dict(dataset=dict(validation=dict(keep='train', fraction=0.5)))\n"
    "val_dataloader = dict(dataset=dict(part='training', validation=dict(keep='val', fraction=0.5)))\n"
)
POINT_CLOUDS = {
    'plain': (None, None),
    'a few of a class': (clouds([0] * 12 + [1] * 10 + [2] * 2), None),
    'a point that is no number': (clouds(change=changed((3, 5, 0), np.nan)), 'cloud 3'),
    'a label too high': (clouds([*range(3)] * 7 + [3, 0, 1]), 'label 3'),
    'a class without a cloud': (clouds([0, 1] * 12), 'plate'),
    'one cloud of a class to be split': (
        both(clouds([0] * 12 + [1] * 11 + [2]), lambda folder: SPLIT), 'plate|class'),
    'fewer points than asked for': (clouds(change=lambda array: array[:, :20]), '20 points'),
    'far away': (clouds(change=lambda array: array + 5e5), '500,?000|5e\\+05|far'),
    'no clouds': (clouds([]), '0 clouds'),
    'no labels': (
        lambda folder: h5py.File(next((folder / 'data').rglob('training*')), 'a').__delitem__('label'), 'label'),
}  # fmt: skip
TABLES = {
    Classification: CLASSIFICATION,
    Segmentation: SEGMENTATION,
    Detection: DETECTION,
    PointClouds: POINT_CLOUDS,
}


@pytest.mark.parametrize(
    ('layout', 'name'),
    [(layout, name) for layout, table in TABLES.items() for name in table],
    ids=lambda value: getattr(value, '__name__', value),
)
def test_the_check_and_the_training_agree(tmp_path, monkeypatch, layout, name):
    monkeypatch.chdir(tmp_path)
    data = layout(tmp_path)
    change, sentence = TABLES[layout][name]
    config = agreement.write_config(tmp_path, layout.config, change(tmp_path) if change else '')
    found = agreement.said(config)
    errors = [line for line in found if line.startswith('error')]
    if sentence is not None:
        assert any(agreement.matches(sentence, line) for line in errors), found
        return
    assert errors == []
    code, finite, metric = agreement.trained(tmp_path, config, layout.metric)
    assert code == 0 and finite
    assert metric == pytest.approx(data.by_hand(tmp_path, agreement.Remember.samples), abs=0.01)
