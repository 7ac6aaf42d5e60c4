"""Classification in the tools: what changes in a config, and what its data is checked for."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.registry import init_default_scope
from mmengine.visualization import Visualizer
from mmpretrain.datasets import CustomDataset
from mmpretrain.registry import DATASETS
from mmpretrain.structures import DataSample
from PIL import Image
from torch import nn

import mmpretrain_plugin  # noqa: F401
from coc_core.errors import UserError
from coc_core.mm.data_checks.inspection import Inspection
from coc_core.mm.task import task_of
from mmpretrain_plugin.pictures import FolderedPicturesHook

RESIZE = dict(type='Resize', scale=64)
PIPELINE = [dict(type='LoadImageFromFile'), RESIZE, dict(type='PackInputs')]


@pytest.fixture
def cfg():
    return Config(
        dict(
            default_scope='mmpretrain',
            model=dict(backbone=dict(type='ContextCluster')),
            test_dataloader=dict(dataset=dict(type='CustomDataset', pipeline=PIPELINE)),
            test_evaluator=dict(type='Accuracy'),
            default_hooks=dict(visualization=dict(type='VisualizationHook', enable=False)),
        )
    )


def test_augmented_copies_are_the_image_and_its_mirror_image(cfg, tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(tmp_path / 'a.png')
    init_default_scope('mmpretrain')
    task = task_of(cfg)
    packed = Compose(task.tta_pipeline(PIPELINE))(dict(img_path=str(tmp_path / 'a.png'), gt_label=0))
    mirrored, plain = packed['inputs']
    assert torch.equal(plain, Compose(PIPELINE)(dict(img_path=str(tmp_path / 'a.png'), gt_label=0))['inputs'])
    assert torch.equal(mirrored, plain.flip(2)) and not torch.equal(mirrored, plain)
    assert task.tta_model == dict(type='mmpretrain.AverageClsScoreTTA')


def test_predictions_are_dumped_beside_the_metric(cfg):
    task_of(cfg).dump_predictions(cfg, 'found.pkl')
    assert cfg.test_evaluator == [dict(type='Accuracy'), dict(type='DumpResults', out_file_path='found.pkl')]


def test_pictures_of_every_fifth_image(cfg):
    task_of(cfg).show_predictions(cfg, window=False, folder='/pictures', interval=5, wait_time=2)
    hook = cfg.default_hooks.visualization
    assert hook.enable and not hook.show and (hook.out_dir, hook.interval, hook.wait_time) == ('/pictures', 5, 2)


def test_images_of_one_name_have_pictures_of_their_own():
    drawn = []
    Visualizer.get_instance('pictures')
    hook = FolderedPicturesHook(enable=True, out_dir='shown', interval=2)
    hook._visualizer = SimpleNamespace(visualize_cls=lambda **given: drawn.append(given['out_file']))
    loader = SimpleNamespace(batch_size=3, dataset=SimpleNamespace(img_prefix='/data/val'))
    paths = [f'/data/val/{name}/0.png' for name in ('ant', 'bee', 'cat', 'dog')] + ['/other/0.png']
    samples = [DataSample(metainfo=dict(img_path=path)) for path in paths]
    for i, part in enumerate((samples[:3], samples[3:])):
        batch = dict(inputs=torch.zeros(len(part), 3, 8, 8))
        hook.after_test_iter(SimpleNamespace(test_dataloader=loader), i, batch, part)
    assert drawn == [f'shown/{name}/0.png_0.png' for name in ('ant', 'cat', 'other')]


def test_augmented_copies_are_not_drawn(cfg):
    task = task_of(cfg)
    task.check_augmentation(cfg)
    task.show_predictions(cfg, window=False, folder='/pictures', interval=5, wait_time=2)
    with pytest.raises(UserError, match='--tta: mmpretrain draws no augmented copies'):
        task.check_augmentation(cfg)


def inspected(task, dataset, *, files):
    inspection = Inspection('train data')
    task.inspect(inspection, dataset, files=files)
    return inspection


def test_images_are_opened_where_files_are(cfg, tmp_path):
    for label in ('cat', 'dog'):
        (tmp_path / label).mkdir()
        Image.new('RGB', (8, 8)).save(tmp_path / label / 'a.jpg')
    (tmp_path / 'dog' / 'b.jpg').write_bytes(b'not an image')
    folders = dict(type='CustomDataset', data_root=str(tmp_path), pipeline=PIPELINE)
    (tmp_path / 'list.txt').write_text('cat/a.jpg 0\ndog/a.jpg 1\ndog/b.jpg 1\n')
    listed = dict(folders, ann_file='list.txt')
    entries = [dict(img_path=name, gt_label=[0]) for name in ('cat/a.jpg', 'dog/b.jpg')]
    (tmp_path / 'list.json').write_text(json.dumps(dict(metainfo={}, data_list=entries)))
    others = dict(folders, type='MultiLabelDataset', ann_file='list.json')
    task = task_of(cfg)
    for dataset, summary in ((folders, '3 images in 2 class folders'), (listed, '3 images'), (others, '2 samples')):
        assert inspected(task, dataset, files=False).samples == []
        found = inspected(task, dataset, files=True)
        assert [p for p in found.problems if p.level == 'error'] == [] and found.summary == summary
        problems = [str(problem) for sample in found.samples for problem in sample().problems]
        assert len(problems) == 1 and 'dog/b.jpg cannot be read as an image' in problems[0]


def test_a_data_set_that_cannot_be_built_is_left_to_training_or_told(cfg, tmp_path):
    dataset = dict(type='CustomDataset', data_root=str(tmp_path), pipeline=PIPELINE, typo=1)
    assert inspected(task_of(cfg), dataset, files=False).problems == []
    (problem,) = inspected(task_of(cfg), dataset, files=True).problems
    assert str(problem).startswith('train data cannot be read (TypeError: ')


@DATASETS.register_module()
class Flowers(CustomDataset):
    """Reads its folders in a way of its own."""

    def load_data_list(self):
        return [dict(img_path=f'{self.img_prefix}/a.jpg', gt_label=7)]


def test_nothing_is_said_of_folders_that_a_class_of_ones_own_reads(cfg, tmp_path):
    dataset = dict(type='Flowers', data_root=str(tmp_path), pipeline=PIPELINE)
    found = inspected(task_of(cfg), dataset, files=True)
    assert found.problems == [] and found.summary == '1 samples'


def test_the_whole_classifier_is_exported(cfg):
    model = nn.Linear(2, 2)
    assert task_of(cfg).exported_part(model) == (model, ['logits'])


@pytest.mark.parametrize(
    ('steps', 'size', 'shape'),
    [
        ([RESIZE], None, (3, 64, 64)),
        ([dict(type='ResizeEdge', scale=248), dict(type='CenterCrop', crop_size=224)], None, (3, 224, 224)),
        ([RESIZE], [96], (3, 96, 96)),
        ([RESIZE], [96, 32], (3, 96, 32)),
    ],
)
def test_one_size_is_exported_and_it_is_the_tested_one_by_default(cfg, steps, size, shape):
    cfg.test_dataloader.dataset.pipeline = [dict(type='LoadImageFromFile'), *steps, dict(type='PackInputs')]
    assert task_of(cfg).input_shape(cfg, size) == shape


def test_a_model_without_a_backbone_of_its_own_is_exported_whole(cfg):
    cfg.model = dict(type='TimmClassifier', model_name='test_resnet', in_chans=1, num_classes=3)
    assert task_of(cfg).input_shape(cfg, [64]) == (1, 64, 64)
    with pytest.raises(UserError, match='Linear has no backbone of its own: leave --backbone out'):
        task_of(cfg).backbone_part(torch.nn.Linear(2, 2))


def test_a_pipeline_that_leaves_the_size_open_asks_for_it(cfg):
    cfg.test_dataloader.dataset.pipeline = [dict(type='LoadImageFromFile'), dict(type='PackInputs')]
    with pytest.raises(UserError, match='say it with --size HEIGHT WIDTH'):
        task_of(cfg).input_shape(cfg, None)


@pytest.mark.parametrize(('choice', 'told'), [({}, 1), ({'test_mode': True}, 0)])
def test_test_pictures_of_mnists_kind_that_are_training_pictures_are_told(cfg, choice, told):
    inspection = Inspection('test data')
    task_of(cfg).inspect(inspection, dict(type='FashionMNIST', data_root='data', split='test', **choice), files=False)
    assert [str(problem).count('reads the training pictures') for problem in inspection.problems] == [1] * told
