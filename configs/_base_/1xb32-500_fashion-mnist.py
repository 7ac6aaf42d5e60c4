"""Fashion-MNIST: 60,000 gray pictures of clothes, 28x28, tested on 10,000 others; one recipe for every model.

The budget is 500 steps of 32 pictures, a quarter of an epoch: it compares how models begin from nothing, not what each
can reach. mmpretrain downloads the files where ``data/fashion-mnist`` has none. Debian and Ubuntu have them, too:

sudo apt install dataset-fashion-mnist && mkdir -p data/fashion-mnist
cp /usr/share/datasets/fashion-mnist/*.gz data/fashion-mnist && gunzip data/fashion-mnist/*.gz
"""

_base_ = ['mmpretrain::_base_/default_runtime.py']
custom_imports = dict(imports=['mmpretrain_plugin'])

image_size = 64
# Of the training pictures: one channel.
data_preprocessor = dict(num_classes=10, mean=[72.94], std=[90.02], to_rgb=False)
train_pipeline = [
    dict(type='RandomResizedCrop', scale=image_size, crop_ratio_range=(0.7, 1.0), interpolation='bilinear'),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='PackInputs'),
]
test_pipeline = [dict(type='Resize', scale=image_size), dict(type='PackInputs')]

_dataset = dict(type='FashionMNIST', data_root='data/fashion-mnist')
train_dataloader = dict(
    batch_size=32,
    num_workers=1,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(**_dataset, split='train', pipeline=train_pipeline),
)
_test = dict(batch_size=100, num_workers=1, sampler=dict(type='DefaultSampler', shuffle=False))
# Without test_mode mmpretrain's class reads the training pictures, whatever its split is called.
_test_dataset = dict(**_dataset, split='test', test_mode=True, pipeline=test_pipeline)
test_dataloader = dict(**_test, dataset=_test_dataset)
# A glance at the first of them, for the curves.
val_dataloader = dict(**_test, dataset=dict(**_test_dataset, indices=1000))
val_evaluator = dict(type='Accuracy', topk=(1,))
test_evaluator = val_evaluator

optim_wrapper = dict(
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05),
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0, flat_decay_mult=0.0),
)
auto_scale_lr = dict(base_batch_size=32)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, end=100),
    dict(type='CosineAnnealingLR', eta_min=1e-6, by_epoch=False, begin=100, end=500),
]
train_cfg = dict(type='IterBasedTrainLoop', max_iters=500, val_interval=100)
val_cfg = dict()
test_cfg = dict()
log_processor = dict(by_epoch=False)
# The last step is the result: none is chosen by its accuracy on the test pictures.
default_hooks = dict(
    logger=dict(interval=10, log_metric_by_epoch=False),
    checkpoint=dict(by_epoch=False, interval=100, max_keep_ckpts=1),
)
visualizer = dict(_delete_=True, type='UniversalVisualizer', vis_backends=[dict(type='LocalVisBackend')])
randomness = dict(seed=0)
