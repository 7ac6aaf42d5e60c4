"""Give each pixel of one's own images a class: few epochs, a weak augmentation, slow early layers, averaged weights.

`python tools/new_config.py --task segmentation --data FOLDER` writes a config of it. `train_cfg.max_epochs` is the
length, which the schedule follows; pipelines of another `image_size` are made by `resized`, as the written config does.
The learning rate is for `auto_scale_lr.base_batch_size` images, and grows with the square root of their number.
"""

_base_ = './fpn_coc_4xb4-80k_ade20k-512x512.py'

# The side of what is cut out for training, and the shorter side of a whole image.
image_size = 512
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='RandomResize', scale=(4 * image_size, image_size), ratio_range=(0.75, 1.5), keep_ratio=True),
    dict(type='RandomCrop', crop_size=(image_size, image_size), cat_max_ratio=0.9),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(4 * image_size, image_size), keep_ratio=True),
    dict(type='ResizeToMultiple', size_divisor=32),
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]
_dataset = dict(_delete_=True, type='BaseSegDataset')
train_dataloader = dict(
    sampler=dict(type='DefaultSampler'), num_workers=2, dataset=dict(**_dataset, pipeline=train_pipeline)
)
val_dataloader = dict(num_workers=2, dataset=dict(**_dataset, pipeline=test_pipeline))
test_dataloader = val_dataloader

# Statistics of one process: SyncBN needs a GPU.
model = dict(decode_head=dict(norm_cfg=dict(type='BN')))
optim_wrapper = dict(
    optimizer=dict(lr=3e-4),
    constructor='LayerDecayOptimWrapperConstructor',
    paramwise_cfg=dict(layer_decay_rate=0.85),
)
auto_scale_lr = dict(base_batch_size=16)
# Without an end of its own a schedule ends with the training.
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=True, end=2, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', by_epoch=True, convert_to_iter_based=True),
]
train_cfg = dict(_delete_=True, type='EpochBasedTrainLoop', max_epochs=40, val_interval=1)
# The average over about the last tenth of the steps, however many there are.
custom_hooks = [dict(type='EMAHook', ema_type='MomentumAnnealingEMA', gamma=10)]
log_processor = dict(by_epoch=True)
default_hooks = dict(
    logger=dict(interval=10, log_metric_by_epoch=True),
    checkpoint=dict(by_epoch=True, interval=1, max_keep_ckpts=1, save_best='mIoU', rule='greater'),
)
