"""Point clouds in the tools: what changes in a config."""

import pytest
from mmengine.config import Config
from torch import nn

import pointcloud  # noqa: F401
from coc_core.errors import UserError
from coc_core.mm.task import task_of


@pytest.fixture
def cfg():
    pipeline = [dict(type='TakeFirstPoints', num_points=256), dict(type='PackPoints')]
    return Config(
        dict(
            default_scope='pointcloud',
            test_dataloader=dict(dataset=dict(type='ScanObjectNN', pipeline=pipeline)),
            test_evaluator=dict(type='PointClsMetric'),
            default_hooks=dict(),
        )
    )


def test_predictions_are_dumped_beside_the_metric(cfg):
    task_of(cfg).dump_predictions(cfg, 'found.pkl')
    assert cfg.test_evaluator == [dict(type='PointClsMetric'), dict(type='DumpResults', out_file_path='found.pkl')]


def test_there_are_no_pictures(cfg):
    with pytest.raises(UserError, match='--show and --show-dir: this task has no pictures to show'):
        task_of(cfg).show_predictions(cfg, window=False, folder='/pictures', interval=1, wait_time=2)


def test_a_classifier_of_so_many_points_is_exported(cfg):
    model = nn.Linear(2, 2)
    assert task_of(cfg).exported_part(model) == (model, ['logits'])
    assert task_of(cfg).input_shape(cfg, None) == (256, 3)
    assert task_of(cfg).input_shape(cfg, [64]) == (64, 3)
    for size in ([64, 64], [0]):
        with pytest.raises(UserError, match=f'--size {" ".join(map(str, size))}: give one number, of points'):
            task_of(cfg).input_shape(cfg, size)
