"""Segmentation in the tools: what changes in a config, and what its data is checked for."""

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmseg.registry import MODELS
from PIL import Image

import mmseg_plugin  # noqa: F401
from coc_core.mm.data_checks.inspection import Inspection
from coc_core.mm.task import task_of
from mmseg_plugin.pictures import NamedPictures


@pytest.fixture
def cfg():
    return Config(
        dict(
            default_scope='mmseg',
            test_evaluator=dict(type='IoUMetric'),
            default_hooks=dict(visualization=dict(type='SegVisualizationHook')),
            visualizer=dict(type='SegLocalVisualizer'),
        )
    )


def test_every_metric_writes_label_maps(cfg):
    written = dict(output_dir='maps', keep_results=True)
    task_of(cfg).dump_predictions(cfg, 'maps')
    assert cfg.test_evaluator == dict(type='IoUMetric', **written)
    cfg.test_evaluator = [dict(type='IoUMetric'), dict(type='CityscapesMetric')]
    task_of(cfg).dump_predictions(cfg, 'maps')
    assert cfg.test_evaluator == [dict(type='IoUMetric', **written), dict(type='CityscapesMetric', **written)]


def test_pictures_go_where_the_visualizer_saves(cfg):
    task_of(cfg).show_predictions(cfg, window=False, folder='/pictures', interval=5, wait_time=3)
    drawn = dict(draw=True, interval=1, show=False, wait_time=3)
    assert cfg.default_hooks.visualization == dict(type='SegVisualizationHook', **drawn)
    assert cfg.visualizer.vis_backends == [dict(type='NamedPictures', save_dir='/pictures')]


def test_pictures_have_the_names_of_their_images(tmp_path):
    backend = NamedPictures(str(tmp_path / 'pictures'))
    for step, name in enumerate(('test_Größe 1.5.jpg', 'test_b.JPG', 'test_b.JPG'), 1):
        backend.add_image(name, np.full((4, 6, 3), (9, 8, step), np.uint8), step=step)
    written = {path.name: np.asarray(Image.open(path))[0, 0].tolist() for path in (tmp_path / 'pictures').iterdir()}
    assert written == {'Größe 1.5.png': [9, 8, 1], 'b.png': [9, 8, 2], 'b_3.png': [9, 8, 3]}


def test_augmented_copies_are_the_configs_own(cfg):
    task = task_of(cfg)
    assert task.tta_pipeline([dict(type='PackSegInputs')]) is None and task.tta_model is None


def inspected(task, dataset, *, files):
    inspection = Inspection('train data')
    task.inspect(inspection, dataset, files=files)
    return inspection


def test_without_label_maps_nothing_is_paired(cfg, tmp_path):
    dataset = dict(type='BaseSegDataset', data_root=str(tmp_path), data_prefix=dict(img_path='images'))
    found = inspected(task_of(cfg), dataset, files=False)
    assert (found.problems, found.samples) == ([], [])
    dataset['data_prefix']['seg_map_path'] = 'maps'
    (problem,) = inspected(task_of(cfg), dataset, files=False).problems
    assert 'has no images' in str(problem)


@pytest.mark.family
def test_weights_that_stop_a_training_are_told_where_they_do(cfg):
    weights = [0.2, 1.0]
    stock, ours = (dict(type=name, class_weight=weights) for name in ('CrossEntropyLoss', 'WeightedCrossEntropyLoss'))
    found = task_of(cfg).pitfall(stock, 'class_weight')
    assert task_of(cfg).pitfall(ours, 'class_weight') is None
    loss = MODELS.build(stock)
    logits, labels = torch.zeros(1, 2, 2, 2), torch.tensor([[[0, 1], [1, 255]]])
    try:
        loss(logits, labels, ignore_index=255)
    except IndexError:
        assert found is not None and 'WeightedCrossEntropyLoss' in found
    else:
        assert found is None


def problems(phase='val', *, data=None, head=None, evaluator=None):
    cfg = Config(
        dict(
            default_scope='mmseg',
            model=dict(decode_head=dict(type='FPNHead', **(head or {}))),
            val_dataloader=dict(dataset=dict(type='BaseSegDataset', **(data or {}))),
            val_evaluator=dict(type='IoUMetric', **(evaluator or {})),
        )
    )
    return [str(problem) for problem in task_of(cfg).config_problems(cfg, phase)]


def test_a_label_that_counts_for_nothing_does_so_everywhere():
    two = dict(ignore_index=2)
    assert problems() == problems(data=two, head=two, evaluator=two) == problems(head=two, evaluator=two) == []
    (told,) = problems(head=two)
    assert told.startswith('ignore_index=255 of val_evaluator is not the 2 of model.decode_head: what counts for')
    assert len(problems(data=two)) == 2 and len(problems(evaluator=two)) == 1
    assert problems('train', evaluator=two) == []


@pytest.mark.parametrize(
    ('trained', 'measured', 'told'),
    [
        (dict(reduce_zero_label=True), {}, 'reduce_zero_label=False is not the True of the training data'),
        (dict(type='ADE20KDataset'), {}, 'reduce_zero_label=False is not the True'),
        (dict(type='ADE20KDataset'), dict(reduce_zero_label=True), None),
        (dict(data_prefix={}, reduce_zero_label=True), {}, None),
        ({}, {}, None),
    ],
)
@pytest.mark.parametrize('phase', ['val', 'test'])
def test_a_zero_that_means_another_thing_than_in_training_is_a_warning(phase, trained, measured, told):
    common = dict(type='BaseSegDataset', data_prefix=dict(seg_map_path='maps'))
    cfg = Config(
        {
            'default_scope': 'mmseg',
            'train_dataloader': dict(dataset=common | trained),
            f'{phase}_dataloader': dict(dataset=dict(type='ConcatDataset', datasets=[common | measured])),
        }
    )
    found = list(task_of(cfg).config_problems(cfg, phase))
    assert [problem.level for problem in found] == ['warning'] * (told is not None)
    assert told is None or str(found[0]).startswith(f'{phase}_dataloader.dataset.{told}')


def test_an_unknown_metric_is_told_before_the_images_are_predicted():
    assert problems(evaluator=dict(iou_metrics=['mIoU', 'mDice'])) == []
    assert problems(evaluator=dict(iou_metrics=['mIou'])) == [
        "val_evaluator.iou_metrics has 'mIou': choose of mIoU, mDice, mFscore."
    ]
