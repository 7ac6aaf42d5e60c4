"""Find objects in images of one's own, boxes and masks: few epochs, slow early layers, averaged weights.

`python tools/new_config.py --task detection --data FILE.json` writes a config of it. `train_cfg.max_epochs` is the
length, which the schedule follows; pipelines of another `image_size` are made by `resized`, as the written config does.
The learning rate is for `auto_scale_lr.base_batch_size` images, and grows with the square root of their number.
"""

_base_ = './mask-rcnn_coc_fpn_8xb4-1x_coco.py'

# The longer side of an image.
image_size = 640
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='Resize', scale=(image_size, image_size), keep_ratio=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(image_size, image_size), keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]
train_dataloader = dict(
    batch_size=4, dataset=dict(data_root='', filter_cfg=dict(filter_empty_gt=True, min_size=1), pipeline=train_pipeline)
)
val_dataloader = dict(dataset=dict(data_root='', pipeline=test_pipeline))
test_dataloader = val_dataloader

optim_wrapper = dict(constructor='LayerDecayOptimWrapperConstructor', paramwise_cfg=dict(layer_decay_rate=0.9))
auto_scale_lr = dict(base_batch_size=16)
# Without an end of its own a schedule ends with the training.
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=True, end=2, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', by_epoch=True, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=24, val_interval=1)
# The average over about the last tenth of the steps, however many there are.
custom_hooks = [dict(type='EMAHook', ema_type='MomentumAnnealingEMA', gamma=10)]
default_hooks = dict(
    logger=dict(interval=10),
    checkpoint=dict(max_keep_ckpts=1, save_best='coco/bbox_mAP', rule='greater'),
)
