"""Classify images of one's own: few epochs, a weak augmentation, slow early layers, averaged weights.

`python tools/new_config.py --task classification --data FOLDER` writes a config of it. `train_cfg.max_epochs` is the
length, which the schedule follows; pipelines of another `image_size` are made by `resized`, as the written config does.
The learning rate is for `auto_scale_lr.base_batch_size` images, and grows with the square root of their number.
"""

_base_ = './coc_8xb128_in1k.py'

image_size = 224
train_pipeline = [
    dict(type='LoadImageFromFile'),
    # A third of the picture or more: what tells the classes apart must stay in it.
    dict(
        type='RandomResizedCrop',
        scale=image_size,
        crop_ratio_range=(0.35, 1.0),
        backend='pillow',
        interpolation='bicubic',
    ),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='PackInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='ResizeEdge', scale=round(image_size / 0.9), edge='short', backend='pillow', interpolation='bicubic'),
    dict(type='CenterCrop', crop_size=image_size),
    dict(type='PackInputs'),
]
_dataset = dict(_delete_=True, type='CustomDataset', extensions=_base_.extensions)
train_dataloader = dict(
    batch_size=32, num_workers=2, drop_last=False, dataset=dict(**_dataset, pipeline=train_pipeline)
)
val_dataloader = dict(batch_size=32, num_workers=2, dataset=dict(**_dataset, pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(topk=(1,))
test_evaluator = val_evaluator

# No mixup, no CutMix: they are for hundreds of epochs.
model = dict(train_cfg=None)
optim_wrapper = dict(
    _delete_=True,
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=5e-4, weight_decay=0.05, eps=1e-8, betas=(0.9, 0.999)),
    constructor='LayerDecayOptimWrapperConstructor',
    paramwise_cfg=dict(layer_decay_rate=0.8, norm_decay_mult=0.0, bias_decay_mult=0.0, flat_decay_mult=0.0),
)
auto_scale_lr = dict(base_batch_size=64)
# Without an end of its own a schedule ends with the training.
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=True, end=2, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', by_epoch=True, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=50, val_interval=1)
# The average over about the last tenth of the steps, however many there are.
custom_hooks = [dict(type='EMAHook', ema_type='MomentumAnnealingEMA', gamma=10)]
default_hooks = dict(logger=dict(interval=10), checkpoint=dict(max_keep_ckpts=1))
