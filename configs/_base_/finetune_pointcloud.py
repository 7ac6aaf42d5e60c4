"""Classify clouds of one's own: AdamW, few epochs, little scaling and shifting, averaged weights.

`python tools/new_config.py --task pointcloud --data PATH` writes a config of it. `train_cfg.max_epochs` is the length,
which the schedule follows; pipelines of another `num_points` are made by `resized`, as the written config does. The
learning rate is for `auto_scale_lr.base_batch_size` clouds, and grows with the square root of their number.
"""

_base_ = './pointmlp_1xb32_scanobjectnn.py'

num_points = 1024
_normalize = dict(type='NormalizePoints')
_augment = dict(type='RandomScaleShift', scale=(0.8, 1.25), shift=(-0.1, 0.1))
_pack = dict(type='PackPoints')
train_pipeline = [
    _normalize,
    dict(type='TakeFirstPoints', num_points=num_points),
    _augment,
    dict(type='ShufflePoints'),
    _pack,
]
test_pipeline = [_normalize, dict(type='TakeFirstPoints', num_points=num_points), _pack]
tta_pipeline = [
    _normalize,
    dict(type='TakeFirstPoints', num_points=num_points),
    dict(type='TestTimeAug', transforms=[[_augment] * 10, [_pack]]),
]
_dataset = dict(_delete_=True, type='PointCloudFile')
# A last batch of one cloud would leave the head's batch normalization without a variance: drop_last stays on.
train_dataloader = dict(num_workers=2, dataset=dict(**_dataset, pipeline=train_pipeline))
val_dataloader = dict(num_workers=2, dataset=dict(**_dataset, pipeline=test_pipeline, test_mode=True))
test_dataloader = val_dataloader

model = dict(head=dict(label_smoothing=0.1))
optim_wrapper = dict(optimizer=dict(_delete_=True, type='AdamW', lr=5e-4, weight_decay=0.01))
# Without an end of its own a schedule ends with the training.
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=True, end=2, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', by_epoch=True, convert_to_iter_based=True),
]
train_cfg = dict(by_epoch=True, max_epochs=50, val_interval=1)
# The average over about the last tenth of the steps, however many there are.
custom_hooks = [
    *_base_.custom_hooks,
    dict(type='EMAHook', ema_type='MomentumAnnealingEMA', gamma=10),
]
default_hooks = dict(logger=dict(interval=10), checkpoint=dict(max_keep_ckpts=1, save_best='OA', rule='greater'))
