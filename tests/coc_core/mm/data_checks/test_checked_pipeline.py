"""Samples that fail while they are loaded: damaged files are named, errors of transforms keep their trace."""

import re

import numpy as np
import pytest
from mmengine.dataset import Compose
from mmengine.registry import init_default_scope
from mmseg.registry import DATASETS
from PIL import Image

from coc_core.errors import UserError
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
    ('kept', 'sentence'), [(0.6, 'images/0.jpg is truncated'), (0.0, 'images/0.jpg cannot be read as an image')]
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
