"""coc_tiny on 1,437 scanned digits, tested on the 360 held back: a whole training in minutes on two cores.

python tools/dataset_converters/make_digits_data.py --layout imagenet
tools/dist_train.sh configs/classification/coc-tiny_1xb32-12e_digits.py 1

Expected top-1: at least 95 %.
"""

_base_ = './coc-tiny_8xb128_in1k.py'

data_root = 'data/digits/imagenet'
classes = list('0123456789')

model = dict(
    # Layer scale starts where a training of a few hundred steps can use it.
    backbone=dict(drop_path_rate=0.0, layer_scale_init=0.1),
    head=dict(num_classes=10),
    train_cfg=None,
)
data_preprocessor = dict(num_classes=10)

# A digit turned over is another digit: shift and scale a little, never flip.
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='RandomResizedCrop', scale=64, crop_ratio_range=(0.7, 1.0), interpolation='bilinear'),
    dict(type='PackInputs'),
]
test_pipeline = [dict(type='LoadImageFromFile'), dict(type='Resize', scale=64), dict(type='PackInputs')]

_dataset = dict(data_root=data_root, metainfo=dict(classes=classes))
train_dataloader = dict(batch_size=32, num_workers=1, dataset=dict(**_dataset, pipeline=train_pipeline))
val_dataloader = dict(batch_size=90, num_workers=1, dataset=dict(**_dataset, pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(topk=(1,))
test_evaluator = val_evaluator

optim_wrapper = dict(
    _delete_=True,
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05, eps=1e-8, betas=(0.9, 0.999)),
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0, flat_decay_mult=0.0),
)
auto_scale_lr = dict(base_batch_size=32)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=True, end=2, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=1e-6, by_epoch=True, begin=2, end=12, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=12)
# The last epoch is the result: no epoch is chosen by its accuracy on the held-back digits.
default_hooks = dict(logger=dict(interval=10), checkpoint=dict(max_keep_ckpts=1, save_best=None))
# How clusters form, on two held-back images, enlarged so that every region has points to group.
custom_hooks = [dict(type='ClusterVisualizationHook', samples=2, interval=24, by_epoch=False, size=256)]
randomness = dict(seed=0)
