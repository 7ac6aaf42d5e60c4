"""Samples that fail while they are loaded: damaged files are named, errors of transforms keep their trace."""

import re

import numpy as np
import pytest
from mmengine.dataset import Compose
from mmengine.registry import init_default_scope
from mmseg.datasets.transforms import LoadAnnotations
from mmseg.registry import DATASETS
from PIL import Image

from coc_core.errors import UserError
from coc_core.mm.data_checks import checked_pipeline
from coc_core.mm.data_checks.checked_pipeline import check_samples


@pytest.mark.parametrize('reduce', [False, True])
def test_reading_a_wrong_label_map_stops_with_its_name(maps, tmp_path, reduce):
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
        with pytest.raises(UserError, match=sentence):
            dataset[0]


@pytest.mark.parametrize(
    ('kept', 'sentence'),
    [(0.6, r'0.jpg cannot be read as an image \(it is trunc'), (0.0, '0.jpg cannot be read as an image')],
)
def test_a_torn_image_stops_training_with_its_name(maps, tmp_path, kept, sentence):
    init_default_scope('mmseg')
    dataset = DATASETS.build(maps.train_dataloader.dataset)
    check_samples(dataset)
    image = tmp_path / 'images' / '0.jpg'
    whole = image.read_bytes()
    image.write_bytes(whole + b'a note of the camera')
    assert dataset[0] is not None
    image.write_bytes(whole[: int(kept * len(whole))])
    # An image is looked at once, so this is another training.
    dataset = DATASETS.build(maps.train_dataloader.dataset)
    check_samples(dataset)
    with pytest.raises(UserError, match=sentence):
        dataset[0]


@pytest.mark.parametrize('phase', ['train', 'val'])
def test_annotations_of_another_size_than_the_image_stop_training_and_test(coco, content, phase):
    init_default_scope('mmdet')
    content['images'][1].update(height=40, width=30)
    dataset = DATASETS.build(dict(coco(content, phase=phase)[f'{phase}_dataloader'].dataset, _scope_='mmdet'))
    check_samples(dataset)
    assert dataset[0] is not None
    with pytest.raises(UserError, match=r'images/2.jpg has 40x30 pixels, its annotations are for 30x40 \(tools'):
        dataset[1]


@pytest.mark.parametrize('reduce', [False, True])
@pytest.mark.parametrize(
    ('labels', 'sentence'),
    [
        (np.zeros((30, 40, 3), np.uint8), r'maps/0.png has 3 channels: a label map has one, of class numbers \(tools'),
        # 258 is 2 in mmseg's 8 bits.
        (np.full((30, 40), 258, np.uint16), r'maps/0.png has the labels 258, which stand for no class \('),
        (np.full((30, 40), 2, np.uint16), None),
        (b'no image', r'maps/0.png cannot be read as an image \(cannot identify'),
    ],
)
def test_a_map_that_mmseg_takes_for_another_stops_training_with_its_name(maps, tmp_path, labels, sentence, reduce):
    init_default_scope('mmseg')
    if isinstance(labels, bytes):
        (tmp_path / 'maps' / '0.png').write_bytes(labels)
    else:
        Image.fromarray(labels).save(tmp_path / 'maps' / '0.png')
    dataset = DATASETS.build(dict(maps.train_dataloader.dataset, reduce_zero_label=reduce))
    check_samples(dataset)
    if sentence is None:
        assert set(dataset[0]['data_samples'].gt_sem_seg.data.unique().tolist()) == {1 if reduce else 2}
        return
    with pytest.raises(UserError, match=sentence):
        dataset[0]


class LoadBrightness(LoadAnnotations):
    """A user's transform: what is bright is a cat."""

    def _load_seg_map(self, results):
        stored = np.array(Image.open(results['seg_map_path']))
        results['gt_seg_map'] = (stored.reshape(30, 40, -1)[..., 0] > 127).astype(np.uint8)
        results['seg_fields'].append('gt_seg_map')


@pytest.mark.parametrize('stored', [np.full((30, 40, 3), 255, np.uint8), np.full((30, 40), 9999, np.uint16)])
def test_any_pixels_are_labels_where_the_users_own_transform_reads_them(maps, tmp_path, stored):
    init_default_scope('mmseg')
    Image.fromarray(stored).save(tmp_path / 'maps' / '0.png')
    steps = maps.train_dataloader.dataset.pipeline
    dataset = DATASETS.build(dict(maps.train_dataloader.dataset, pipeline=[steps[0], LoadBrightness(), *steps[2:]]))
    check_samples(dataset)
    assert dataset[0]['data_samples'].gt_sem_seg.data.unique().tolist() == [1]


def test_each_file_is_looked_at_once(maps, monkeypatch):
    init_default_scope('mmseg')
    dataset = DATASETS.build(maps.train_dataloader.dataset)
    check_samples(dataset)
    looked = []
    monkeypatch.setattr(checked_pipeline, 'is_torn', looked.append)
    monkeypatch.setattr(checked_pipeline, 'lost_labels', lambda path, *_: looked.append(path))
    for _ in range(2):
        for place in range(2):
            dataset[place]
    assert [path.name for path in looked] == ['0.jpg', '0.png', '1.jpg', '1.png']


class Faulty:
    """A transform of the user's own with a mistake in it."""

    def __call__(self, data):
        return data['no such key']


def test_a_faulty_transform_keeps_its_trace_after_the_name_of_the_sample(maps, capsys):
    init_default_scope('mmseg')
    dataset = DATASETS.build(dict(maps.train_dataloader.dataset, pipeline=[dict(type='LoadImageFromFile'), Faulty()]))
    check_samples(dataset)
    with pytest.raises(KeyError, match='no such key'):
        dataset[0]
    assert re.fullmatch(
        r'error while running Faulty on the sample .*images/0.jpg:\n', capsys.readouterr().err.splitlines(True)[-1]
    )
