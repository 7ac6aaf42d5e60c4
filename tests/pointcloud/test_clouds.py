"""Clouds and labels that cannot be learned, or not be split, and what is said of them."""

import fcntl

import h5py
import numpy as np
import pytest
from mmengine.config import Config

from coc_core.errors import UserError
from coc_core.mm.data_checks.checks import check_data, config_problems, inspections
from pointcloud.clouds import place_problems, split
from pointcloud.dataset import ScanObjectNN, read

CLASSES = ['cat', 'dog', 'emu']
FILE = 'main_split/training_objectdataset_augmentedrot_scale75.h5'


@pytest.fixture
def cfg(tmp_path):
    dataset = dict(type='ScanObjectNN', data_root=str(tmp_path), part='training', metainfo=dict(classes=CLASSES))
    model = dict(type='PointCloudClassifier', head=dict(type='PointClsHead', num_classes=3))
    return Config(dict(default_scope='pointcloud', model=model, train_dataloader=dict(dataset=dataset)))


def write(root, labels, points=None):
    (root / FILE).parent.mkdir(exist_ok=True)
    if points is None:
        points = np.random.default_rng(0).uniform(-1, 1, (len(labels), 8, 3)).astype(np.float32)
    with h5py.File(root / FILE, 'w') as file:
        file['data'], file['label'] = points, labels
    return root / FILE


def found(cfg):
    (inspection,) = inspections(cfg, ['train'], files=False)
    return [(p.level, str(p).partition('.h5 ')[2] or str(p)) for p in inspection.problems]


def test_the_head_is_made_for_the_classes_of_the_file(cfg, tmp_path):
    write(tmp_path, [0, 1, 2])
    assert found(cfg) == []
    cfg.model.head.num_classes = 15
    with pytest.raises(
        UserError, match=r'model.head.num_classes=15, but the train data has 3 classes \(cat, dog, emu\)'
    ):
        check_data(cfg, ['train'])
    del cfg.train_dataloader.dataset['metainfo']
    assert not any('num_classes' in sentence for _, sentence in found(cfg))


def test_a_class_without_a_cloud_is_an_error_in_training_alone(cfg, tmp_path):
    write(tmp_path, [0, 1, 1])
    assert found(cfg) == [('error', 'has no sample of 1 of the classes (emu): what has none cannot be learned.')]
    cfg.val_dataloader = cfg.train_dataloader
    (inspection,) = inspections(cfg, ['val'], files=False)
    assert [p.level for p in inspection.problems] == ['warning']
    assert inspection.summary == '3 clouds of 8 points, 2 of 3 classes'


@pytest.mark.parametrize(
    ('labels', 'fraction', 'sentence'),
    [
        ([0, 0, 1, 1, 2], 0.5, "the class 'emu' has one cloud, and a stratified split needs two of each class"),
        ([0] * 5 + [1] * 5 + [2] * 5, 0.1, 'fraction=0.1 of 15 clouds leaves 2 for validation, fewer than .* (3)'),
        ([0] * 5 + [1] * 5 + [2] * 5, 0.9, 'fraction=0.9 of 15 clouds leaves 1 for training, fewer than .* (3)'),
        ([0, 0, 1, 1, 2, 2], 1.5, 'fraction=1.5 must be between 0 and 1'),
        ([0, 0, 1, 1, 2, 2], 0, 'fraction=0 must be between 0 and 1'),
    ],
)
def test_what_cannot_be_split_stops_before_training(cfg, tmp_path, labels, fraction, sentence):
    write(tmp_path, labels)
    cfg.train_dataloader.dataset.validation = dict(keep='train', fraction=fraction)
    sentence = sentence.replace('(', r'\(').replace(')', r'\)')
    with pytest.raises(UserError, match=f'scale75.h5 cannot be split: validation.*{sentence}'):
        check_data(cfg, ['train'])
    settings = {k: v for k, v in cfg.train_dataloader.dataset.items() if k != 'type'}
    with pytest.raises(UserError, match=sentence):
        ScanObjectNN(**settings)


def test_the_least_that_can_be_split_is_split():
    labels = np.array([0, 0, 1, 1, 2, 2])
    sides = [split(labels, CLASSES, keep, fraction=0.5) for keep in ('train', 'val')]
    assert [labels[side].tolist() for side in sides] == [[0, 1, 2], [0, 1, 2]]


@pytest.mark.parametrize('validation', [dict(keep='test'), dict(fraction=0.5), dict(keep='val', ratio=0.5)])
def test_settings_of_a_split_that_are_none_are_told(cfg, tmp_path, validation):
    write(tmp_path, [0, 0, 1, 1, 2, 2])
    cfg.train_dataloader.dataset.validation = validation
    with pytest.raises(UserError, match=r"cannot be split: validation.* must .*'train' or .*'val'"):
        check_data(cfg, ['train'])


def cloud(radius, center):
    corners = np.stack(np.meshgrid([-1, 1], [-1, 1], [-1, 1]), axis=-1).reshape(1, 8, 3)
    return (radius * corners + np.asarray(center)).astype(np.float32)


@pytest.mark.parametrize(
    ('radius', 'center', 'expected'),
    [
        (1, (0, 0, 0), None),
        (1, (1.5, -1.5, 0), None),
        (100, (150, 0, 0), None),
        (0.2, (0.5, 0, 0), None),
        (1, (0, -3, 0), ('warning', 'has 1 clouds far from the origin, first cloud 1 of radius 1 at (0, -3, 0)')),
        (1, (5e5, 4.5e6, 0), ('error', 'has 1 clouds far from the origin, first cloud 1 of radius ')),
        (0.05, (0, 0, 0), ('warning', 'has 1 clouds too small for the augmentation, first cloud 1 of radius 0.05 at')),
        (0.01, (0, 0, 0), ('error', 'has 1 clouds too small for the augmentation, first cloud 1 of radius 0.01 at')),
        (0, (0.5, 0, 0), ('warning', 'has 1 clouds whose points are all the same, first cloud 1: they show no shape')),
    ],
)
def test_clouds_that_are_not_near_the_unit_sphere_are_told(tmp_path, radius, center, expected):
    points = np.concatenate([cloud(1, (0, 0, 0)), cloud(radius, center)])
    problems = list(place_problems(tmp_path / 'a.h5', points))
    if expected is None:
        assert problems == []
        return
    (problem,) = problems
    assert problem.level == expected[0] and problem.what.startswith(expected[1])


def test_points_that_the_pipeline_does_not_take_do_not_count(cfg, tmp_path):
    points = np.repeat(np.concatenate([cloud(1, 0), cloud(1, 100)], axis=1), 3, axis=0)
    write(tmp_path, [0, 1, 2], points)
    cfg.train_dataloader.dataset.pipeline = [dict(type='TakeFirstPoints', num_points=8)]
    # What is left of each cloud is told, and not that the rest is far away.
    assert ['lie in a part of the shape' in what for _, what in found(cfg)] == [True]
    cfg.train_dataloader.dataset.pipeline = []
    write(tmp_path, [0, 1, 2], points + 5000)
    assert [level for level, _ in found(cfg)] == ['error']


def test_clouds_that_the_pipeline_moves_may_be_anywhere(cfg, tmp_path):
    cfg.train_dataloader.dataset.pipeline = [dict(type='NormalizePoints')]
    write(tmp_path, [0, 1, 2], np.repeat(cloud(0.05, (50, -80, 0)), 3, axis=0))
    assert found(cfg) == []
    write(tmp_path, [0, 1, 2], np.repeat(cloud(1, (5e5, 4.5e6, 0)), 3, axis=0))
    ((level, what),) = found(cfg)
    assert level == 'error' and 'so far from the origin that their coordinates have few digits left' in what


def test_the_first_points_of_a_scan_are_told_to_be_a_part_of_it(cfg, tmp_path):
    points = np.random.default_rng(0).uniform(-1, 1, (30, 512, 3)).astype(np.float32)
    cfg.train_dataloader.dataset.pipeline = [dict(type='TakeFirstPoints', num_points=256)]
    write(tmp_path, np.arange(30) % 3, points)
    assert found(cfg) == []
    write(tmp_path, np.arange(30) % 3, np.take_along_axis(points, points[..., 2:].argsort(axis=1), axis=1))
    ((level, what),) = found(cfg)
    assert level == 'warning' and what == (
        'has an order of points by which the first 256 of 512 points of most clouds lie in a part of the shape: '
        'shuffle the points of each cloud.'
    )
    cfg.train_dataloader.dataset.pipeline[0].num_points = 512
    assert found(cfg) == []


@pytest.mark.parametrize('filling', [0, -1, None])
def test_clouds_that_are_filled_up_with_one_point_are_told(cfg, tmp_path, filling):
    points = np.random.default_rng(0).uniform(-1, 1, (6, 64, 3)).astype(np.float32)
    points[4, 48:] = points[4, 47] if filling is None else filling
    points[5, 32:] = points[5, :32]
    write(tmp_path, [0, 1, 2] * 2, points)
    ((level, what),) = found(cfg)
    assert level == 'warning' and 'has 1 clouds that are filled up with one point, first cloud 4 to 2' in what


@pytest.mark.parametrize(
    ('train', 'val', 'shared'),
    [
        (None, None, 'cloud 0, and 29 more'),
        (dict(keep='train', fraction=0.3), dict(keep='val', fraction=0.3), None),
        (dict(keep='train', fraction=0.3), dict(keep='val', fraction=0.3, seed=1), 'more'),
        (dict(keep='train', fraction=0.3), dict(keep='train', fraction=0.3), 'and 20 more'),
        (dict(keep='train', fraction=0.3), None, 'and 20 more'),
    ],
)
def test_clouds_that_training_has_seen_are_named_as_they_test_nothing(cfg, tmp_path, capsys, train, val, shared):
    points = np.random.default_rng(0).uniform(-1, 1, (30, 8, 3)).astype(np.float32)
    write(tmp_path, np.arange(30) % 3, points)
    # A copy of a file is the same data.
    copy = tmp_path / 'copy'
    copy.mkdir()
    write(copy, np.arange(30) % 3, points)
    cfg.train_dataloader.dataset.validation = train
    for root in (tmp_path, copy):
        dataset = dict(cfg.train_dataloader.dataset, data_root=str(root), validation=val, test_mode=True)
        cfg.val_dataloader = dict(dataset=dataset)
        check_data(cfg, ['train', 'val'])
        told = capsys.readouterr().err
        assert ('in common with the training data' in told) == bool(shared) and (shared or '') in told


@pytest.mark.parametrize(
    ('phase', 'steps', 'backbone', 'told'),
    [
        ('val', [32], {}, []),
        ('val', [16], {}, ['The val pipeline takes 16 points of a cloud, but the train pipeline 32']),
        ('test', [dict(type='TestTimeAug', transforms=[[24]])], {}, ['takes 24 points of a cloud, but the train pi']),
        (
            'val',
            [32, dict(type='NormalizePoints')],
            {},
            ['The val pipeline has NormalizePoints, but the train pipeline'],
        ),
        ('train', [], dict(anchors=(64, 32, 16, 8)), ['takes 32 points of a cloud, but the model keeps 64 anchors']),
        ('train', [], dict(arch='unknown'), []),
        ('test', [], dict(anchors=(64, 32, 16, 8)), []),
    ],
)
def test_clouds_are_measured_as_they_are_learned(cfg, phase, steps, backbone, told):
    def take(step):
        if isinstance(step, dict):
            return dict(step, transforms=[list(map(take, each)) for each in step.get('transforms', ())])
        return dict(type='TakeFirstPoints', num_points=step)

    cfg.model.backbone = dict(arch='pointmlp_elite', neighbors=4, anchors=(16, 8, 8, 8)) | backbone
    cfg.train_dataloader.dataset.pipeline = [take(32)]
    if phase != 'train':
        cfg[f'{phase}_dataloader'] = dict(dataset=dict(cfg.train_dataloader.dataset, pipeline=list(map(take, steps))))
    problems = list(config_problems(cfg, phase))
    assert [problem.level for problem in problems] == ['warning'] * len(told)
    assert all(start in str(problem) for start, problem in zip(told, problems, strict=True))


@pytest.mark.parametrize('shape', [(0, 8, 3), (3, 0, 3)])
def test_a_file_without_a_point_is_told(cfg, tmp_path, shape):
    write(tmp_path, np.zeros(shape[0], np.int64), np.zeros(shape, np.float32))
    what = f'holds {shape[0]} clouds of {shape[1]} points: there is nothing in it.'
    assert found(cfg) == [('error', what)]


def test_a_file_that_another_program_writes_is_told_from_a_torn_one(tmp_path):
    path = write(tmp_path, [0, 1, 2])
    with open(path, 'rb') as file:
        # What HDF5 does where it opens a file for writing.
        fcntl.flock(file, fcntl.LOCK_EX)
        assert 'is open for writing by another program' in str(read(path))
    assert read(path)[1].tolist() == [0, 1, 2]
    with h5py.File(path, 'w', libver='latest') as file:
        file['data'] = np.zeros((1, 8, 3), np.float32)
        file.swmr_mode = True
        file.flush()
        left = path.with_name('left.h5')
        left.write_bytes(path.read_bytes())
    assert 'is open for writing by another program, or was left so by one that ended early' in str(read(left))
    path.write_bytes(path.read_bytes()[:-100])
    assert 'is not a complete HDF5 file' in str(read(path))


def test_a_file_that_may_not_be_read_is_told_from_a_torn_one(tmp_path, monkeypatch):
    path = write(tmp_path, [0, 1, 2])

    def refuses(*_):
        raise PermissionError(13, 'Permission denied')

    monkeypatch.setattr(h5py, 'File', refuses)
    assert str(read(path)).endswith('scale75.h5 cannot be read ([Errno 13] Permission denied).')


def test_a_group_in_the_place_of_clouds_is_told(tmp_path):
    path = tmp_path / 'a.h5'
    with h5py.File(path, 'w') as file:
        file.create_group('data')
        file['label'] = [0]
    assert str(read(path)).endswith("a.h5 has no 'data': it has 'data', 'label'.")
