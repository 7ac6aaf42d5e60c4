"""Data sets of whose annotations nothing is known: their images alone."""

import pickle

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.registry import DATASETS, Registry
from PIL import Image

from coc_core.mm.data_checks.checks import inspections
from coc_core.mm.data_checks.inspection import dataset_class


@pytest.fixture
def folders(tmp_path, picture):
    """A class with a photo, and one with a picture of real numbers, which Pillow reads and OpenCV does not."""
    picture(tmp_path / 'cat' / 'photo.jpg')
    (tmp_path / 'dog').mkdir()
    Image.fromarray(np.ones((30, 40), np.float32)).save(tmp_path / 'dog' / 'real.tif')
    pipeline = [dict(type='LoadImageFromFile'), dict(type='PackInputs')]
    dataset = dict(type='CustomDataset', data_root=str(tmp_path), pipeline=pipeline)
    return Config(dict(default_scope='mmpretrain', train_dataloader=dict(batch_size=1, dataset=dataset)))


def test_images_are_opened_as_the_pipeline_loads_them(folders, everything):
    (error,), others = everything(folders)
    assert 'dog/real.tif cannot be decoded (TIFF with pixels of mode F): save it anew, with 8 bits' in error
    assert others == []
    folders.train_dataloader.dataset.pipeline[0].imdecode_backend = 'pillow'
    assert everything(folders) == ([], [])


def test_samples_can_be_sent_to_other_processes(folders):
    (found,) = inspections(folders, ['train'], files=True)
    opened = [pickle.loads(pickle.dumps(sample))() for sample in found.samples]
    assert opened == [sample() for sample in found.samples] and [len(o.problems) for o in opened] == [0, 1]


def test_what_a_package_says_of_optional_parts_is_passed_over(tmp_path, monkeypatch, capsys):
    (tmp_path / 'garrulous.py').write_text("print('Could not import OneDL')\nprint('mine')\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(DATASETS, '_children', dict(DATASETS.children))
    Registry('dataset', parent=DATASETS, scope='garrulous', locations=['garrulous'])
    assert dataset_class('garrulous', dict(type='Unknown')) is None
    assert 'mine\n' in (said := capsys.readouterr().out) and 'OneDL' not in said
