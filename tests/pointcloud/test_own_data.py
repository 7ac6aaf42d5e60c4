"""What a config for clouds of one's own is written from, and what is said of files that do not serve."""

import h5py
import numpy as np
import pytest
from mmengine.config import Config

from coc_core.errors import UserError
from coc_core.mm.own_data.fitting import Machine
from coc_core.mm.own_data.plan import DataRequest
from pointcloud.dataset import read
from pointcloud.own_data import plan
from pointcloud.point_files import write_clouds


def request(data, classes=None):
    return DataRequest(data, data / 'mine.py', 'pointmlp_elite', None, classes, Machine(False, 1 << 32, 2))


def clouds(count=12, points=64):
    return np.random.default_rng(0).normal(size=(count, points, 3)).astype(np.float32)


@pytest.mark.parametrize('classes', [None, ('cup', 'ball')])
def test_labels_that_begin_at_one_are_told_as_such(tmp_path, classes):
    with h5py.File(tmp_path / 'train.h5', 'w') as file:
        file['data'], file['label'] = clouds(), np.arange(12) % 2 + 1
    with pytest.raises(UserError, match=r'train.h5 numbers its 2 classes from 1: store label - 1, so that they begin'):
        plan(request(tmp_path, classes))
    with pytest.raises(UserError, match='--classes names 1 classes, but the labels go to 2: name 3'):
        plan(request(tmp_path, ('cup',)))
    assert "['a', 'b', 'c']" in plan(request(tmp_path, ('a', 'b', 'c'))).text


def test_one_line_says_how_many_points_are_taken(tmp_path):
    with h5py.File(tmp_path / 'train.h5', 'w') as file:
        file['data'], file['label'] = clouds(points=1024), np.arange(12) % 2
    text = plan(request(tmp_path)).text
    for points, anchors, neighbors in ((1024, (512, 256, 128, 64), 24), (128, (64, 32, 16, 8), 16)):
        (tmp_path / 'mine.py').write_text(text.replace('num_points = 1024', f'num_points = {points}'))
        cfg = Config.fromfile(tmp_path / 'mine.py', import_custom_modules=False)
        assert cfg.model.backbone == dict(type='PointMLP', arch='pointmlp_elite', anchors=anchors, neighbors=neighbors)
        assert cfg.test_dataloader.dataset.pipeline[1].num_points == points


def test_files_that_are_not_read_are_told(tmp_path):
    for name in ('ball', 'cup'):
        (tmp_path / name).mkdir()
        for i in range(2):
            np.save(tmp_path / name / f'{i}.npy', clouds()[i])
    assert len(plan(request(tmp_path)).notes) == 1
    for name in ('ball/2.pcd', 'ball/3.pcd', 'cup/LICENSE', 'more.xyz'):
        (tmp_path / name).write_text('')
    told = plan(request(tmp_path)).notes[1]
    assert told.startswith(f'{tmp_path} has files that are not read: 2 .pcd, ')
    assert '1 .xyz' in told and '1 without an ending' in told


def test_clouds_of_few_points_are_told(tmp_path, capsys):
    np.save(tmp_path / 'whole.npy', clouds()[0])
    np.save(tmp_path / 'few.npy', clouds()[1, :5])
    files = [tmp_path / 'whole.npy', tmp_path / 'few.npy']
    write_clouds(files[:1], [0], 64, tmp_path / 'a.h5')
    assert not capsys.readouterr().out
    write_clouds(files, [0, 1], 64, tmp_path / 'a.h5')
    assert f'1 of 2 clouds have fewer than 64 different points, which are taken again: {files[1]} has 5' in (
        capsys.readouterr().out
    )
    assert read(tmp_path / 'a.h5')[0].shape == (2, 64, 3)
