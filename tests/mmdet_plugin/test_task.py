"""Detection in the tools: what changes in a config, and what its data is checked for."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.registry import init_default_scope
from mmengine.visualization import Visualizer
from PIL import Image
from torch.testing import assert_close

import mmdet_plugin  # noqa: F401
from coc_core.errors import UserError
from coc_core.mm.data_checks.inspection import Inspection
from coc_core.mm.task import task_of
from mmdet_plugin.pictures import FolderedDetPicturesHook

PIPELINE = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(40, 40), keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]


@pytest.fixture
def cfg():
    return Config(
        dict(
            default_scope='mmdet',
            model=dict(backbone=dict(type='ContextCluster', in_channels=4)),
            test_dataloader=dict(dataset=dict(type='CocoDataset', pipeline=PIPELINE)),
            test_evaluator=[dict(type='CocoMetric')],
            default_hooks=dict(visualization=dict(type='DetVisualizationHook')),
        )
    )


def test_augmented_copies_know_how_they_were_flipped(cfg, tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 40, 3), dtype=np.uint8)).save(tmp_path / 'a.png')
    init_default_scope('mmdet')
    instance = dict(bbox=[2, 3, 12, 13], bbox_label=1, ignore_flag=0)
    data = dict(img_path=str(tmp_path / 'a.png'), img_id=5, instances=[instance])
    packed = Compose(task_of(cfg).tta_pipeline(PIPELINE))(data)
    mirrored, plain = packed['inputs']
    assert torch.equal(mirrored, plain.flip(2)) and not torch.equal(mirrored, plain)
    first, second = packed['data_samples']
    # DetTTAModel brings the boxes of the mirror image back by these.
    assert (first.flip, first.flip_direction, second.flip) == (True, 'horizontal', False)
    assert first.img_id == second.img_id == 5
    assert_close(second.gt_instances.bboxes.tensor, torch.tensor([[2.0, 3.0, 12.0, 13.0]]))
    assert len(PIPELINE) == 4 and 'flip' not in PIPELINE[-1]['meta_keys']


def test_predictions_are_dumped_with_their_masks_beside_the_metric(cfg):
    task_of(cfg).dump_predictions(cfg, 'found.pkl')
    assert cfg.test_evaluator == [dict(type='CocoMetric'), dict(type='DumpDetResults', out_file_path='found.pkl')]


def test_pictures_are_shown_or_written(cfg):
    task_of(cfg).show_predictions(cfg, window=True, folder=None, interval=5, wait_time=3)
    hook = cfg.default_hooks.visualization
    assert hook.draw and hook.show and hook.wait_time == 3 and hook.test_out_dir is None
    task_of(cfg).show_predictions(cfg, window=False, folder='/pictures', interval=5, wait_time=3)
    assert hook.draw and not hook.show and hook.test_out_dir == '/pictures'


def test_images_of_one_name_have_pictures_of_their_own(tmp_path):
    drawn = []
    visualizer = SimpleNamespace(add_datasample=lambda *args, **given: drawn.append(given['out_file']))
    Visualizer.get_instance('pictures')
    hook = FolderedDetPicturesHook(draw=True, test_out_dir=str(tmp_path / 'shown'))
    hook._visualizer = visualizer
    samples = []
    for name in ('left', 'right'):
        (tmp_path / 'images' / name).mkdir(parents=True)
        Image.new('RGB', (8, 8)).save(tmp_path / 'images' / name / '0.png')
        samples.append(SimpleNamespace(img_path=str(tmp_path / 'images' / name / '0.png')))
    dataset = SimpleNamespace(data_prefix=dict(img=str(tmp_path / 'images')))
    runner = SimpleNamespace(work_dir='w', timestamp='t', test_dataloader=SimpleNamespace(dataset=dataset))
    hook.after_test_iter(runner, 0, {}, samples)
    assert drawn == [f'{tmp_path}/shown/{name}/0.png' for name in ('left', 'right')]


def inspected(task, dataset, *, files):
    inspection = Inspection('train data')
    task.inspect(inspection, dataset, files=files)
    return inspection


def test_other_annotations_than_cocos_are_not_looked_into(cfg, tmp_path):
    dataset = dict(type='XMLDataset', data_root=str(tmp_path), ann_file='train.txt')
    found = inspected(task_of(cfg), dataset, files=False)
    assert (found.problems, found.samples) == ([], [])
    for kind in ('CocoPanopticDataset', 'LVISV1Dataset'):
        dataset = dict(type=kind, data_root=str(tmp_path), ann_file='train.json')
        assert inspected(task_of(cfg), dataset, files=False).problems == []
    dataset = dict(type='CocoDataset', data_root=str(tmp_path), ann_file='train.json')
    (problem,) = inspected(task_of(cfg), dataset, files=False).problems
    assert str(problem).endswith('train.json does not exist.')


def test_the_backbone_is_exported_in_a_size_that_is_said(cfg):
    model = SimpleNamespace(backbone=SimpleNamespace(out_indices=(0, 2)))
    assert task_of(cfg).exported_part(model) == (model.backbone, ['stage0', 'stage2'])
    assert task_of(cfg).input_shape(cfg, [64, 96]) == (4, 64, 96)
    with pytest.raises(UserError, match='mmdet has no fixed image size: say it with --size HEIGHT WIDTH'):
        task_of(cfg).input_shape(cfg, None)
