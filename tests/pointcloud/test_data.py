"""ScanObjectNN files, their transforms and what is said about bad ones."""

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import default_collate

from coc_core.errors import UserError
from coc_core.mm.data_checks.checks import check_data, inspections
from pointcloud.dataset import FILES, ScanObjectNN
from pointcloud.metrics import PointClsMetric
from pointcloud.registry import TRANSFORMS

CONFIG = Path(__file__).parents[2] / 'configs' / 'pointcloud' / 'pointmlp-coc_1xb32-250e_scanobjectnn.py'


def write(root, variant='PB_T50_RS', part='training', *, points=None, labels=None, **rename):
    folder, ending = FILES[variant]
    path = root / folder / f'{part}_objectdataset{ending}.h5'
    path.parent.mkdir(parents=True, exist_ok=True)
    labels = np.arange(30) % 15 if labels is None else labels
    points = np.random.default_rng(0).normal(size=(len(labels), 40, 3)).astype(np.float32) if points is None else points
    with h5py.File(path, 'w') as file:
        file[rename.get('data', 'data')] = points
        file[rename.get('label', 'label')] = labels
    return path


def config(root, num_points=32):
    cfg = Config.fromfile(CONFIG)
    for phase in ('train', 'val', 'test'):
        dataset = cfg[f'{phase}_dataloader'].dataset
        dataset.data_root = str(root)
        dataset.pipeline[0].num_points = num_points
    return cfg


@pytest.mark.parametrize(('variant', 'file'), [
    ('OBJ_ONLY', 'main_split_nobg/test_objectdataset.h5'),
    ('OBJ_BG', 'main_split/test_objectdataset.h5'),
    ('PB_T25', 'main_split/test_objectdataset_augmented25_norot.h5'),
    ('PB_T25_R', 'main_split/test_objectdataset_augmented25rot.h5'),
    ('PB_T50_R', 'main_split/test_objectdataset_augmentedrot.h5'),
    ('PB_T50_RS', 'main_split/test_objectdataset_augmentedrot_scale75.h5'),
])  # fmt: skip
def test_each_variant_has_its_file(tmp_path, variant, file):
    assert write(tmp_path, variant, 'test') == tmp_path / file
    dataset = ScanObjectNN(str(tmp_path), 'test', variant=variant)
    assert len(dataset) == 30
    assert dataset[16]['gt_label'] == 1
    assert dataset.metainfo['classes'][4] == 'chair'


def test_perturbed_variant_without_background(tmp_path):
    path = write(tmp_path, part='test')
    (tmp_path / 'main_split').rename(tmp_path / 'main_split_nobg')
    assert len(ScanObjectNN(str(tmp_path), 'test', folder='main_split_nobg')) == 30
    assert not path.exists()


def test_validation_split_is_stratified_seeded_and_disjoint(tmp_path):
    write(tmp_path, labels=np.repeat(np.arange(3), [10, 20, 30]))
    options = dict(fraction=0.2, seed=3)
    train, val, again = (
        ScanObjectNN(str(tmp_path), 'training', validation=dict(keep=keep, **options))
        for keep in ('train', 'val', 'val')
    )
    places = [[dataset[i]['place'] for i in range(len(dataset))] for dataset in (train, val, again)]
    assert sorted(places[0] + places[1]) == list(range(60))
    assert places[1] == places[2]
    assert np.bincount([val[i]['gt_label'] for i in range(len(val))]).tolist() == [2, 4, 6]


def test_stored_clouds_are_never_changed(tmp_path):
    write(tmp_path)
    pipeline = [TRANSFORMS.build(step) for step in config(tmp_path).train_dataloader.dataset.pipeline]
    dataset = ScanObjectNN(str(tmp_path), 'training', pipeline=pipeline)
    before = dataset.points.copy()
    sample = dataset[5]
    sample['inputs'].add_(1)
    assert np.array_equal(dataset.points, before)
    with pytest.raises(ValueError, match='read-only'):
        dataset.points[0] = 0


def test_training_pipeline_keeps_first_points_scales_shifts_and_shuffles(tmp_path):
    write(tmp_path)
    pipeline = [TRANSFORMS.build(step) for step in config(tmp_path).train_dataloader.dataset.pipeline]
    dataset = ScanObjectNN(str(tmp_path), 'training', pipeline=pipeline)
    np.random.seed(1)
    first = dataset[5]
    np.random.seed(1)
    again, other = dataset[5], dataset[5]
    assert torch.equal(first['inputs'], again['inputs'])
    assert not torch.equal(first['inputs'], other['inputs'])
    stored = torch.tensor(dataset.points[5, :32])
    moved = first['inputs']
    assert moved.shape == (32, 3)
    for axis in range(3):
        x, y = stored[:, axis].sort().values, moved[:, axis].sort().values
        factor = (y[-1] - y[0]) / (x[-1] - x[0])
        assert 2 / 3 <= factor <= 3 / 2
        shift = y - factor * x
        assert shift.abs().max() <= 0.2 + 1e-5
        torch.testing.assert_close(shift, shift[:1].expand(32), atol=1e-5, rtol=0)
    assert (moved[:, 0].argsort() != stored[:, 0].argsort()).any()


def test_batches_are_what_the_model_takes(tmp_path):
    write(tmp_path)
    pipeline = [TRANSFORMS.build(step) for step in config(tmp_path).test_dataloader.dataset.pipeline]
    dataset = ScanObjectNN(str(tmp_path), 'training', pipeline=pipeline)
    batch = default_collate([dataset[0], dataset[17]])
    assert batch['inputs'].shape == (2, 32, 3)
    assert torch.equal(batch['inputs'][1], torch.tensor(dataset.points[17, :32]))
    assert [sample.gt_label.tolist() for sample in batch['data_samples']] == [[0], [2]]


def nan(root):
    points = np.zeros((15, 40, 3), np.float32)
    points[7, 3, 1] = np.nan
    write(root, points=points, labels=np.arange(15))


BAD = {
    'missing': (lambda root: (root / 'main_split').mkdir(), r'scale75\.h5 does not exist: see docs/point-clouds\.md'),
    'not hdf5': (lambda root: write(root).write_bytes(b'words'), r'scale75\.h5 is not a complete HDF5 file'),
    'truncated': (lambda root: truncate(write(root)), r'scale75\.h5 is not a complete HDF5 file'),
    'no label': (lambda root: write(root, label='labels'), r"scale75\.h5 has no 'label': it has 'data', 'labels'"),
    'nan': (nan, r'scale75\.h5, cloud 7, has coordinates that are no numbers: point 3 is \[0\.0, nan, 0\.0\]'),
    'class': (
        lambda root: write(root, labels=np.array([*range(14), 15])),
        r'scale75\.h5, cloud 14, has the label 15, but there are 15 classes',
    ),
    'shape': (lambda root: write(root, points=np.zeros((30, 40, 2))), r"'data' of shape \(30, 40, 2\)"),
    'column': (
        lambda root: write(root, labels=np.zeros((30, 1), int)),
        r"'label' of shape \(30, 1\): store it as \(30,\), label\[:, 0\]",
    ),
    'counts': (lambda root: write(root, points=np.zeros((29, 40, 3))), r"'label' of shape \(30,\)"),
}  # fmt: skip


def truncate(path):
    path.write_bytes(path.read_bytes()[:-500])


@pytest.mark.parametrize('name', BAD)
def test_bad_files_stop_a_run_before_it_starts_and_are_listed(tmp_path, name):
    make, message = BAD[name]
    make(tmp_path)
    cfg = config(tmp_path)
    with pytest.raises(UserError, match=message):
        check_data(cfg, ['train'])
    with pytest.raises(UserError, match=message):
        ScanObjectNN(str(tmp_path), 'training')
    (inspection,) = inspections(cfg, ['train'], files=True)
    assert any(problem for problem in inspection.problems)


def test_every_cloud_of_a_bad_kind_is_listed(tmp_path):
    labels = np.arange(30) % 15
    labels[[4, 9]] = -1
    write(tmp_path, labels=labels)
    (inspection,) = inspections(config(tmp_path), ['train'], files=True)
    assert [str(problem).split(', cloud ')[1].split(',')[0] for problem in inspection.problems] == ['4', '9']
    assert inspection.summary.startswith('30 clouds of 40 points')


def test_part_of_the_published_data_trains_but_is_told(tmp_path):
    write(tmp_path)
    check_data(config(tmp_path), ['train'])
    (inspection,) = inspections(config(tmp_path), ['train'], files=True)
    (problem,) = (problem for sample in inspection.samples for problem in sample().problems)
    assert str(problem).endswith('has 30 clouds, but the published file of PB_T50_RS has 11,416.')


def test_a_cloud_with_fewer_points_than_asked_for_is_named(tmp_path):
    write(tmp_path)
    with pytest.raises(UserError, match=r'scale75\.h5 holds clouds of 40 points, but the pipeline takes 41'):
        check_data(config(tmp_path, num_points=41), ['train'])


def test_metric_is_overall_and_class_balanced(caplog):
    metric = PointClsMetric()
    metric.dataset_meta = dict(classes=['bag', 'bin', 'box'])
    scores = torch.eye(3)
    samples = [
        dict(gt_label=torch.tensor([label]), pred_scores=scores[guess]) for label, guess in [(0, 0)] * 3 + [(1, 0)]
    ]
    metric.process(None, samples)
    assert metric.evaluate(4) == {'OA': 75.0, 'mAcc': 50.0}
