"""Small data sets of all four tasks, what check_data.py says of them, and what a training makes of them.

A training here is one of tools/train.py with a real data set, pipeline and metric. Detection has a model that answers
with the annotations it is given, so that its AP must be 1; the other metrics are computed once more from files by hand.
"""

import json
import math
import re
from pathlib import Path
from typing import ClassVar

import check_data
import h5py
import numpy as np
import survival
import torch
from mmengine.evaluator import BaseMetric
from mmengine.model import BaseModel
from mmengine.registry import METRICS, MODELS
from mmengine.structures import InstanceData
from PIL import Image
from pycocotools import mask as rle
from torch.nn.functional import cross_entropy

from coc_core.mm.configs import load_config

ROOT = Path(__file__).parents[4]
SIZE = 32


@METRICS.register_module()
class Remember(BaseMetric):
    """Keeps what the model predicted, for a computation by hand."""

    samples: ClassVar[list] = []

    def process(self, data_batch, data_samples):
        type(self).samples.extend(data_samples)
        self.results.append(len(data_samples))

    def compute_metrics(self, results):
        return {}


@MODELS.register_module()
class Echo(BaseModel):
    """A detector that trains on labels, boxes and masks as Mask R-CNN's heads do, and predicts its annotations."""

    def __init__(self, num_classes, data_preprocessor=None):
        super().__init__(data_preprocessor)
        self.scores = torch.nn.Parameter(torch.zeros(num_classes))

    def forward(self, inputs, data_samples, mode):
        if mode == 'loss':
            return dict(loss=sum(self._loss(sample.gt_instances) for sample in data_samples) / len(data_samples))
        for sample in data_samples:
            found = sample.gt_instances
            # Ignored ones are told apart: crowds are nobody's prediction.
            sample.pred_instances = InstanceData(
                bboxes=found.bboxes, labels=found.labels, scores=torch.ones(len(found.labels)),
                masks=torch.from_numpy(found.masks.to_ndarray()).bool(),
            )  # fmt: skip
        return data_samples

    def _loss(self, found):
        count = len(found.labels)
        boxes = found.bboxes
        masks = found.masks.crop_and_resize(boxes.numpy(), (14, 14), np.arange(count), 'cpu').to_ndarray()
        assert masks.any(axis=(1, 2)).all(), 'an object without a mask'
        return cross_entropy(self.scores.expand(count, -1), found.labels) + 0 * boxes.sum()


def pixels(seed, size=SIZE, low=0, high=256):
    return np.random.default_rng(seed).integers(low, high, (size, size, 3), dtype=np.uint8)


def save(path, array, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)


class Classification:
    """Folders of cats and dogs."""

    config = (
        survival.CONFIG.replace("'images'", "'data'")
        .replace('max_epochs=3', 'max_epochs=1')
        .replace('T_max=3', 'T_max=1')
        + "val_evaluator = [dict(type='Accuracy', topk=1), dict(type='Remember')]\n"
        + 'test_cfg, test_dataloader, test_evaluator = val_cfg, val_dataloader, val_evaluator\n'
    )
    metric = 'accuracy/top1'

    def __init__(self, folder):
        for split, count in (('train', 6), ('val', 3)):
            for label, name in enumerate(('cat', 'dog')):
                for i in range(count):
                    array = pixels(10 * i + label, low=100 * label, high=100 * label + 120)
                    save(folder / 'data' / split / name / f'{i}.png', array)

    def by_hand(self, folder, samples):
        names = sorted({path.name for path in (folder / 'data' / 'train').iterdir() if not path.name.startswith('.')})
        truth = [names.index(next(p.name for p in Path(s['img_path']).parents if p.name in names)) for s in samples]
        return 100 * np.mean([int(s['pred_label']) == t for s, t in zip(samples, truth, strict=True)])


class Segmentation:
    """Label maps of nothing, a cat and a dog."""

    config = """
default_scope = 'mmseg'
custom_imports = dict(imports=['mmseg_plugin'])
model = dict(
    type='EncoderDecoder', data_preprocessor=dict(type='SegDataPreProcessor', size=(32, 32), seg_pad_val=255),
    backbone=dict(
        type='ContextCluster', out_indices=(1,),
        arch=dict(depths=(1, 1), dims=(8, 16), mlp_ratios=2, heads=2, head_dim=4, center_grid=2, region_grid=1)),
    decode_head=dict(
        type='FCNHead', in_channels=16, channels=8, num_convs=1, num_classes=3, in_index=0,
        loss_decode=dict(type='CrossEntropyLoss')),
    test_cfg=dict(mode='whole'))
load, labels, pack = dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='PackSegInputs')
dataset = dict(
    type='BaseSegDataset', data_root='data', metainfo=dict(classes=['nothing', 'cat', 'dog']),
    pipeline=[load, labels, pack])
train_dataloader = dict(
    batch_size=2, num_workers=0, sampler=dict(type='InfiniteSampler'),
    dataset=dict(**dataset, data_prefix=dict(img_path='images/train', seg_map_path='maps/train')))
val_dataloader = dict(
    batch_size=1, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(**dataset, data_prefix=dict(img_path='images/val', seg_map_path='maps/val')))
val_evaluator = [dict(type='IoUMetric'), dict(type='Remember')]
train_cfg = dict(type='IterBasedTrainLoop', max_iters=3, val_interval=3)
val_cfg = test_cfg = dict()
test_dataloader, test_evaluator = val_dataloader, val_evaluator
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.01))
default_hooks = dict(
    logger=dict(type='LoggerHook', interval=1), checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=3))
randomness = dict(seed=0)
"""
    metric = 'mIoU'

    def __init__(self, folder):
        for split, count in (('train', 4), ('val', 2)):
            for i in range(count):
                save(folder / 'data' / 'images' / split / f'{i}.jpg', pixels(i))
                save(folder / 'data' / 'maps' / split / f'{i}.png', self.labels())

    @staticmethod
    def labels():
        found = np.zeros((SIZE, SIZE), np.uint8)
        found[4:20, 4:20], found[20:30, 10:30], found[:2] = 1, 2, 255
        return found

    def by_hand(self, folder, samples):
        inside, union = np.zeros(3), np.zeros(3)
        for sample in samples:
            with Image.open(folder / 'data' / 'maps' / 'val' / f'{Path(sample["img_path"]).stem}.png') as image:
                truth = np.asarray(image)
            guess = sample['pred_sem_seg']['data'][0].numpy()
            for label in range(3):
                one, other = guess[truth != 255] == label, truth[truth != 255] == label
                inside[label] += (one & other).sum()
                union[label] += (one | other).sum()
        return 100 * np.mean(inside[union > 0] / union[union > 0])


class Detection:
    """COCO annotations of a cat and a dog in each picture."""

    config = """
default_scope = 'mmdet'
custom_imports = dict(imports=['mmdet_plugin'])
model = dict(type='mmengine.Echo', num_classes=2, data_preprocessor=dict(type='DetDataPreprocessor'))
pipeline = [
    dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape'))]
dataset = dict(
    type='CocoDataset', data_root='data/', metainfo=dict(classes=('cat', 'dog')), pipeline=pipeline)
train_dataloader = dict(
    batch_size=2, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        **dataset, ann_file='train.json', data_prefix=dict(img='images/train/'),
        filter_cfg=dict(filter_empty_gt=True, min_size=8)))
val_dataloader = dict(
    batch_size=1, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(**dataset, ann_file='val.json', data_prefix=dict(img='images/val/'), test_mode=True))
val_evaluator = dict(type='CocoMetric', ann_file='data/val.json', metric=['bbox', 'segm'])
train_cfg = dict(by_epoch=True, max_epochs=1)
val_cfg = test_cfg = dict()
test_dataloader, test_evaluator = val_dataloader, val_evaluator
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.01))
default_hooks = dict(logger=dict(type='LoggerHook', interval=1))
randomness = dict(seed=0)
"""
    metric = 'coco/segm_mAP'

    def __init__(self, folder):
        for split, count in (('train', 4), ('val', 2)):
            for i in range(count):
                save(folder / 'data' / 'images' / split / f'{i}.jpg', pixels(i))
            self.write(folder, split, self.content(count))

    @staticmethod
    def content(count):
        def annotation(i, image, category, box):
            x, y, w, h = box
            polygon = [x, y, x + w, y, x + w, y + h, x, y + h]
            return dict(
                id=i, image_id=image, category_id=category, bbox=box, area=w * h, iscrowd=0, segmentation=[polygon]
            )

        return dict(
            images=[dict(id=i, file_name=f'{i}.jpg', height=SIZE, width=SIZE) for i in range(count)],
            annotations=[
                annotation(2 * i + k + 1, i, category, box)
                for i in range(count)
                for k, (category, box) in enumerate([(10, [2, 3, 10, 8]), (20, [14, 15, 12, 9])])
            ],
            categories=[dict(id=10, name='cat'), dict(id=20, name='dog')],
        )

    @staticmethod
    def write(folder, split, content):
        (folder / 'data' / f'{split}.json').write_text(json.dumps(content))

    @staticmethod
    def compressed(box, size=SIZE):
        mask = np.zeros((size, size), np.uint8, order='F')
        x, y, w, h = box
        mask[y : y + h, x : x + w] = 1
        found = rle.encode(mask)
        return dict(size=found['size'], counts=found['counts'].decode())

    def by_hand(self, folder, samples):
        return 1.0


class PointClouds:
    """Balls, sticks and plates."""

    config = f"""
_base_ = '{ROOT}/configs/pointcloud/pointmlp-coc_1xb16-12e_digits.py'
classes = ['ball', 'stick', 'plate']
model = dict(
    backbone=dict(
        embed_dim=8, dim_factors=(2, 1, 1, 1), pre_blocks=(1, 1, 1, 1), post_blocks=(1, 1, 1, 1), neighbors=4,
        anchors=(16, 8, 8, 4)),
    head=dict(num_classes=3))
_take = dict(type='TakeFirstPoints', num_points=32)
_pack = dict(type='PackPoints')
train_pipeline = [_take, dict(type='ShufflePoints'), _pack]
test_pipeline = [_take, _pack]
_dataset = dict(data_root='data', metainfo=dict(classes=classes))
train_dataloader = dict(batch_size=6, num_workers=0, dataset=dict(**_dataset, pipeline=train_pipeline))
val_dataloader = dict(batch_size=6, num_workers=0, dataset=dict(**_dataset, pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = [dict(type='PointClsMetric'), dict(type='mmengine.Remember')]
test_evaluator = val_evaluator
param_scheduler = [dict(type='CosineAnnealingLR', T_max=1, by_epoch=True)]
train_cfg = dict(max_epochs=1)
"""
    metric = 'OA'

    def __init__(self, folder):
        self.write(folder, 'training', np.arange(24) % 3)
        self.write(folder, 'test', np.arange(12) % 3)

    @staticmethod
    def clouds(labels, points=40):
        stretch = np.float32([(1, 1, 1), (1, 0.1, 0.1), (1, 1, 0.1)])
        noise = np.random.default_rng(len(labels)).uniform(-0.5, 0.5, (len(labels), points, 3))
        return (noise * stretch[np.asarray(labels) % 3][:, None]).astype(np.float32)

    def write(self, folder, part, labels, clouds=None):
        path = folder / 'data' / 'main_split' / f'{part}_objectdataset_augmentedrot_scale75.h5'
        path.parent.mkdir(parents=True, exist_ok=True)
        with h5py.File(path, 'w') as file:
            file['data'] = self.clouds(labels) if clouds is None else clouds
            file['label'] = labels
        return path

    def by_hand(self, folder, samples):
        path = folder / 'data' / 'main_split' / 'test_objectdataset_augmentedrot_scale75.h5'
        with h5py.File(path) as file:
            truth = file['label'][()][[int(sample['sample'].rpartition(' ')[2]) for sample in samples]]
        return 100 * np.mean([int(s['pred_scores'].argmax()) == t for s, t in zip(samples, truth, strict=True)])


def write_config(folder, text, more):
    (folder / 'base.py').write_text(text)
    path = folder / 'config.py'
    # A change of files alone returns what it likes.
    path.write_text(f"_base_ = 'base.py'\n{more if isinstance(more, str) else ''}\n")
    return str(path)


def said(config):
    """Return what check_data.py says of training and validation data, with the level of each."""
    reports = check_data.reports_of(load_config(config), ['train', 'val'], 1)
    return [f'{problem["level"]}: {problem["text"]}' for report in reports for problem in report.problems]


def trained(folder, config, metric):
    """Train; return the exit code, the losses and the metric."""
    Remember.samples.clear()
    project = survival.Project(folder)
    code = project.train(config, 'work')
    (log,) = (folder / 'work').glob('*/vis_data/scalars.json')
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    losses = [line['loss'] for line in lines if 'loss' in line]
    found = [line[metric] for line in lines if metric in line]
    return code, all(map(math.isfinite, losses)) and bool(losses), found[-1] if found else None


def matches(sentence, line):
    """Whether one of the texts between bars is in a line."""
    return any(re.search(text, line) for text in sentence.split('|'))
