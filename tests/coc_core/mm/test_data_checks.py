"""Wrong data: what is said about it before training, while it is read, and by tools/check_data.py."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.registry import init_default_scope
from PIL import Image

from coc_core.mm.checked_pipeline import check_samples
from coc_core.mm.data_checks import check_data
from coc_core.mm.data_checks.inspection import inspections
from coc_core.mm.errors import LaunchError

ROOT = Path(__file__).parents[3]


def picture(path, width=40, height=30, value=90):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, value, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def coco_content():
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

    def config(content, *, classes=('cat', 'dog'), num_classes=None):
        text = content if isinstance(content, str) else json.dumps(content)
        (tmp_path / 'instances.json').write_text(text)
        pipeline = [
            dict(type='LoadImageFromFile'),
            dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
            dict(type='PackDetInputs'),
        ]
        dataset = dict(
            type='CocoDataset', data_root=str(tmp_path), ann_file='instances.json', data_prefix=dict(img='images'),
            metainfo=dict(classes=classes), pipeline=pipeline,
        )  # fmt: skip
        model = dict(type='RetinaNet', bbox_head=dict(type='RetinaHead', num_classes=num_classes or len(classes)))
        return Config(dict(default_scope='mmdet', model=model, train_dataloader=dict(batch_size=1, dataset=dataset)))

    return config


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


def everything(cfg):
    (found,) = inspections(cfg, ['train'], files=True)
    problems = [*found.problems, *(p for sample in found.samples for p in sample())]
    return [str(p) for p in problems if not p.skipped], [str(p) for p in problems if p.skipped]


@pytest.mark.parametrize('layout', ['coco', 'maps'])
def test_good_data_has_no_problems(layout, request):
    cfg = request.getfixturevalue(layout)
    cfg = cfg(coco_content()) if layout == 'coco' else cfg
    check_data(cfg, ['train'])
    assert everything(cfg) == ([], [])


def remove(key):
    return lambda content: content.pop(key)


def change(key, index, **entries):
    return lambda content: content[key][index].update(entries)


@pytest.mark.parametrize(
    ('damage', 'sentence'),
    [
        (
            change('images', 1, file_name='gone.jpg'),
            r'images/gone.jpg does not exist, although .*instances.json lists it',
        ),
        (lambda content: content['annotations'].clear(), 'instances.json has an empty list of annotations'),
        (remove('categories'), 'instances.json is not in COCO format: it has no list categories'),
        (change('categories', 1, name='cow'), r"has no category 'dog' \(1 of the 2 classes .* categories cat, cow\)"),
        (lambda content: content['categories'].reverse(), 'orders its categories dog, cat, metainfo cat, dog'),
        (change('annotations', 0, image_id=9), 'annotation 1 belongs to the image 9, which the file does not list'),
        (change('annotations', 1, category_id=9), 'annotation 2 has the category 9, which the file does not list'),
        (change('annotations', 0, segmentation=[]), 'annotation 1 has no segmentation, but the pipeline loads masks'),
        (change('annotations', 0, bbox=[1, 2, 3]), r'annotation 1 has the box \[1, 2, 3\] instead of'),
        (change('annotations', 1, id=1), 'gives 1 annotation ids more than once, first 1'),
        (lambda content: content['images'][0].pop('height'), 'has the image 1 without height'),
    ],
)
def test_wrong_annotations_stop_before_training(coco, damage, sentence):
    content = coco_content()
    damage(content)
    with pytest.raises(LaunchError, match=sentence):
        check_data(coco(content), ['train'])


def test_a_torn_annotation_file_is_named(coco):
    with pytest.raises(LaunchError, match=r'instances.json is not valid JSON \(.*line 1 column'):
        check_data(coco(json.dumps(coco_content())[:200]), ['train'])


def test_another_number_of_classes_than_the_models_is_an_error(coco):
    with pytest.raises(LaunchError, match=r'model.bbox_head.num_classes=80, but the train data has 2 classes'):
        check_data(coco(coco_content(), num_classes=80), ['train'])


def test_what_mmdet_skips_is_counted_and_no_error(coco, capsys):
    content = coco_content()
    content['annotations'][2]['bbox'] = [50.0, 3.0, 10.0, 8.0]
    check_data(coco(content, classes=('cat',)), ['train'])
    assert '1 annotations of 1 categories that metainfo does not list (dog)' in capsys.readouterr().err
    errors, skipped = everything(coco(content, classes=('cat',)))
    assert errors == [] and len(skipped) == 2 and 'outside its image' in skipped[1]


def test_files_are_opened_to_their_end(coco, tmp_path):
    cfg = coco(coco_content())
    whole = (tmp_path / 'images' / '1.jpg').read_bytes()
    (tmp_path / 'images' / '1.jpg').write_bytes(whole[: len(whole) // 2])
    picture(tmp_path / 'images' / '2.jpg', width=41)
    errors, _ = everything(cfg)
    assert len(errors) == 2
    assert '1.jpg cannot be read as an image' in errors[0] and 'runcated' in errors[0]
    assert '2.jpg has 41x30 pixels, its annotations are for 40x30' in errors[1]


def test_label_maps_are_compared_with_images_and_classes(maps, tmp_path):
    Image.fromarray(np.full((30, 41), 1, np.uint8)).save(tmp_path / 'maps' / '0.png')
    Image.fromarray(np.uint8([[0, 3], [7, 255]]).repeat(15, 0).repeat(20, 1)).save(tmp_path / 'maps' / '1.png')
    (tmp_path / 'maps' / '9.png').write_bytes((tmp_path / 'maps' / '0.png').read_bytes())
    errors, skipped = everything(maps)
    assert '0.png has 41x30 pixels, its image 40x30' in errors[0]
    assert '1.png has the labels 3, 7, which stand for no class (0 to 2, and 255 for no label)' in errors[1]
    assert len(errors) == 2 and len(skipped) == 1 and '9.png' in skipped[0]
    (tmp_path / 'maps' / '1.png').unlink()
    with pytest.raises(LaunchError, match=r'images/1.jpg has no label map'):
        check_data(maps, ['train'])


def test_classes_that_a_data_set_does_not_know(maps):
    maps.train_dataloader.dataset.type = 'ADE20KDataset'
    with pytest.raises(LaunchError, match=r"ADE20KDataset knows no class 'nothing'.*BaseSegDataset"):
        check_data(maps, ['train'])


@pytest.mark.parametrize('reduce', [False, True])
def test_reading_a_wrong_label_map_stops_with_its_name(maps, tmp_path, reduce):
    from mmseg.registry import DATASETS

    init_default_scope('mmseg')
    highest = 3 if reduce else 2
    settings = dict(maps.train_dataloader.dataset, reduce_zero_label=reduce)
    dataset = DATASETS.build(settings)
    check_samples(dataset)
    assert type(dataset.pipeline) is not Compose
    for value, size, sentence in (
        (highest, (30, 40), None),
        (highest + 1, (30, 40), f'0.png has the labels {highest + (0 if reduce else 1)}, which stand for no class'),
        (highest, (30, 44), '0.png has 44x30 pixels, its image 40x30'),
    ):
        Image.fromarray(np.full(size, value, np.uint8)).save(tmp_path / 'maps' / '0.png')
        if sentence is None:
            assert int(dataset[0]['data_samples'].gt_sem_seg.data.max()) == 2
            continue
        with pytest.raises(LaunchError, match=sentence):
            dataset[0]


@pytest.mark.parametrize(
    ('kept', 'sentence'), [(0.6, 'images/0.jpg is truncated'), (0.0, 'images/0.jpg fails in LoadIm')]
)
def test_a_torn_image_stops_training_with_its_name(maps, tmp_path, kept, sentence):
    from mmseg.registry import DATASETS

    init_default_scope('mmseg')
    dataset = DATASETS.build(maps.train_dataloader.dataset)
    check_samples(dataset)
    image = tmp_path / 'images' / '0.jpg'
    whole = image.read_bytes()
    image.write_bytes(whole + b'a note of the camera')
    assert dataset[0] is not None
    image.write_bytes(whole[: int(kept * len(whole))])
    with pytest.raises(LaunchError, match=sentence):
        dataset[0]


def test_the_tool_lists_every_problem(coco, tmp_path):
    content = coco_content()
    content['annotations'][0]['image_id'] = 9
    cfg = coco(content)
    (tmp_path / 'images' / '2.jpg').write_bytes(b'not an image')
    cfg.dump(tmp_path / 'config.py')
    tool = [sys.executable, ROOT / 'tools' / 'check_data.py', tmp_path / 'config.py']
    done = subprocess.run([*map(str, tool), '--phase', 'train'], capture_output=True, text=True)
    assert done.returncode == 1 and '2 errors.' in done.stdout
    assert 'annotation 1 belongs to the image 9' in done.stdout and '2.jpg cannot be read' in done.stdout
