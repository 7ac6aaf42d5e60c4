"""Keys of ``--cfg-options``: those that change something pass, others are named with their neighbors."""

import pytest
from mmengine.config import Config

from coc_core.errors import UserError
from coc_core.mm.option_keys import check_option_keys

CONFIG = """
default_scope = 'mmpretrain'
pipeline = [dict(type='LoadImageFromFile', color_type='grayscale'), dict(type='PackInputs')]
model = dict(
    type='ImageClassifier', backbone=dict(type='LeNet5', num_classes=-1), neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=2, in_channels=120),
    data_preprocessor=dict(mean=[127.5], std=[40.0], to_rgb=False))
train_dataloader = dict(
    batch_size=4, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(type='CustomDataset', data_root='images', data_prefix='train', pipeline=pipeline))
val_dataloader = dict(
    batch_size=4, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type='CustomDataset', data_root='images', data_prefix='val', pipeline=pipeline))
test_dataloader = val_dataloader
val_evaluator = test_evaluator = dict(type='Accuracy', topk=1)
train_cfg = dict(by_epoch=True, max_epochs=2)
val_cfg = test_cfg = dict()
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.01, momentum=0.9))
default_hooks = dict(checkpoint=dict(type='CheckpointHook', interval=1))
randomness = dict(seed=0)
"""


@pytest.mark.parametrize(
    'key',
    [
        'train_cfg.max_epochs',
        'train_dataloader.prefetch_factor',
        'model.head.init_cfg',
        'load_from',
        'default_hooks.early_stopping',
        'train_dataloader.dataset.test_mode',
        'optim_wrapper.clip_grad',
        'randomness.deterministic',
        'model.head.topk',
        'auto_scale_lr.enable',
        'train_dataloader.dataset.pipeline.0.to_float32',
    ],
)
def test_known_option_keys(key):
    check_option_keys(Config.fromstring(CONFIG, '.py'), {key: None})


@pytest.mark.parametrize(
    'key',
    [
        'modle.backbone.type',
        'model.backbone.archh',
        'model.backbone.type.x',
        'train_dataloader.dataset.data_rot',
        'train_dataloader.dataset.pipeline.7.type',
        'randomness.sed',
        'train_dataloader.batchsize',
    ],
)
def test_unknown_option_keys(key):
    with pytest.raises(UserError, match=f'--cfg-options {key}: '):
        check_option_keys(Config.fromstring(CONFIG, '.py'), {key: None})
