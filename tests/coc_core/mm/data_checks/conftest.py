"""Small data sets of both layouts, whole until a test damages them."""

import json

import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image

from coc_core.mm.data_checks.checks import inspections


def picture(path, width=40, height=30, value=90, orientation=1):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, value, (height, width, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(path, exif=exif)
    return path


@pytest.fixture(name='picture')
def picture_fixture():
    return picture


@pytest.fixture
def content():
    """What an annotation file of two images and two classes holds."""

    def annotation(i, image, category, **changes):
        box = [2.0, 3.0, 10.0, 8.0]
        polygon = [[2, 3, 12, 3, 12, 11, 2, 11]]
        return dict(
            id=i, image_id=image, category_id=category, bbox=box, area=80.0, iscrowd=0, segmentation=polygon, **changes
        )

    return dict(
        images=[dict(id=i, file_name=f'{i}.jpg', height=30, width=40) for i in (1, 2)],
        annotations=[annotation(1, 1, 10), annotation(2, 1, 20), annotation(3, 2, 10)],
        categories=[dict(id=10, name='cat'), dict(id=20, name='dog')],
    )


@pytest.fixture
def coco(tmp_path):
    for i in (1, 2):
        picture(tmp_path / 'images' / f'{i}.jpg')

    def config(content, *, classes=('cat', 'dog'), num_classes=None, phase='train', loads=None, **changes):
        text = content if isinstance(content, str) else json.dumps(content)
        (tmp_path / 'instances.json').write_text(text)
        pipeline = [
            dict(type='LoadImageFromFile'),
            dict(type='LoadAnnotations', with_bbox=True, **(loads or dict(with_mask=True))),
            dict(type='PackDetInputs', meta_keys=('img_id', 'ori_shape')),
        ]
        dataset = dict(
            type='CocoDataset', data_root=str(tmp_path), ann_file='instances.json', data_prefix=dict(img='images'),
            metainfo=dict(classes=classes), pipeline=pipeline, test_mode=phase != 'train', **changes,
        )  # fmt: skip
        model = dict(type='RetinaNet', bbox_head=dict(type='RetinaHead', num_classes=num_classes or len(classes)))
        loader = {f'{phase}_dataloader': dict(batch_size=1, dataset=dataset)}
        return Config(dict(default_scope='mmdet', model=model, **loader))

    return config


@pytest.fixture
def told():
    """What is known of an annotation file without opening images: level and sentence, without the file's name."""

    def problems(cfg, phase='train'):
        (found,) = inspections(cfg, [phase], files=False)
        return [(problem.level, str(problem).split('instances.json', 1)[1]) for problem in found.problems]

    return problems


@pytest.fixture
def maps(tmp_path):
    """Two images with label maps of a background and two classes."""
    for i in range(2):
        picture(tmp_path / 'images' / f'{i}.jpg')
        (tmp_path / 'maps').mkdir(exist_ok=True)
        Image.fromarray(np.tile(np.uint8([0, 1, 2, 255]), (30, 10))).save(tmp_path / 'maps' / f'{i}.png')
    pipeline = [
        dict(type='LoadImageFromFile'),
        dict(type='LoadAnnotations'),
        dict(type='Resize', scale=(20, 15)),
        dict(type='PackSegInputs'),
    ]
    dataset = dict(
        type='BaseSegDataset', data_root=str(tmp_path), data_prefix=dict(img_path='images', seg_map_path='maps'),
        metainfo=dict(classes=['nothing', 'cat', 'dog']), pipeline=pipeline,
    )  # fmt: skip
    return Config(dict(default_scope='mmseg', train_dataloader=dict(batch_size=1, dataset=dataset)))


@pytest.fixture(name='everything')
def everything_fixture():
    """All errors of a config's training data, and all that is none, with every file opened."""
    return everything


def everything(cfg):
    (found,) = inspections(cfg, ['train'], files=True)
    problems = [*found.problems, *found.opened(sample() for sample in found.samples)]
    return [str(p) for p in problems if p.level == 'error'], [str(p) for p in problems if p.level != 'error']
