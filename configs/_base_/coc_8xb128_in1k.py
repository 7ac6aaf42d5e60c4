"""ImageNet-1k with the published Context Cluster recipe: 8 GPUs x 128 images, 300 + 10 epochs.

Differences from what mmpretrain ships. The published schedule holds the learning rate within an epoch e:
1e-6 + e (lr - 1e-6) / 5 for e < 5, lr_min + (lr - lr_min) (1 + cos(pi e / 300)) / 2 up to 300, then 1e-6 for 10 epochs.
Both schedulers start at epoch 0, because the published cosine is not shifted by the warm-up.
"""

_base_ = [
    'mmpretrain::_base_/datasets/imagenet_bs128_poolformer_small_224.py',
    'mmpretrain::_base_/schedules/imagenet_bs1024_adamw_swin.py',
    'mmpretrain::_base_/default_runtime.py',
]
custom_imports = dict(imports=['mmpretrain_plugin'])

model = dict(
    type='ImageClassifier',
    backbone=dict(type='ContextCluster', arch=None, out_indices=(3,), output_norm='classification', drop_path_rate=0.1),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='LinearClsHead',
        num_classes=1000,
        in_channels=None,
        loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1, mode='original'),
        init_cfg=dict(type='TruncNormal', layer='Linear', std=0.02),
    ),
    train_cfg=dict(augments=[dict(type='Mixup', alpha=0.8), dict(type='CutMix', alpha=1.0)]),
)

# ImageNet's mean and deviation, in the order of the channels that are read (BGR).
bgr_mean = [103.53, 116.28, 123.675]
bgr_std = [57.375, 57.12, 58.395]
_crop = dict(type='RandomResizedCrop', scale=224, backend='pillow')
_augment = dict(
    type='RandAugment',
    policies='timm_increasing',
    num_policies=2,
    total_level=10,
    magnitude_level=9,
    magnitude_std=0.5,
)
_fill = [round(x) for x in bgr_mean]
# The published training draws bilinear or bicubic anew for the crop and for the augmentation.
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='RandomChoice',
        transforms=[[dict(**_crop, interpolation='bilinear')], [dict(**_crop, interpolation='bicubic')]],
    ),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(
        type='RandomChoice',
        transforms=[
            [dict(**_augment, hparams=dict(pad_val=_fill, interpolation='bilinear'))],
            [dict(**_augment, hparams=dict(pad_val=_fill, interpolation='bicubic'))],
        ],
    ),
    dict(
        type='RandomErasing',
        erase_prob=0.25,
        mode='rand',
        min_area_ratio=0.02,
        max_area_ratio=1 / 3,
        fill_color=bgr_mean,
        fill_std=bgr_std,
    ),
    dict(type='PackInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='ResizeEdge', scale=248, edge='short', backend='pillow', interpolation='bicubic'),
    dict(type='CenterCrop', crop_size=224),
    dict(type='PackInputs'),
]
# What OpenCV decodes; mmpretrain's own list passes over some of these, without a word.
extensions = (
    '.jpg', '.jpeg', '.jpe', '.jfif', '.jp2', '.png', '.webp', '.avif', '.gif', '.bmp', '.tif', '.tiff', '.ppm', '.pgm',
    '.pbm', '.pnm',
)  # fmt: skip
train_dataloader = dict(drop_last=True, dataset=dict(pipeline=train_pipeline, extensions=extensions))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline, extensions=extensions))
test_dataloader = val_dataloader

optim_wrapper = dict(
    type='AmpOptimWrapper',
    dtype='float16',
    loss_scale='dynamic',
    # Not decayed: biases, norms, and with flat_decay_mult every one-dimensional parameter: layer scale, sim_alpha,
    # sim_beta.
    paramwise_cfg=dict(_delete_=True, norm_decay_mult=0.0, bias_decay_mult=0.0, flat_decay_mult=0.0),
)
param_scheduler = [
    # LinearLR reaches its end factor one epoch before ``end``: at epoch 5.
    dict(type='LinearLR', start_factor=1e-3, by_epoch=True, begin=0, end=6),
    dict(type='CosineAnnealingLR', T_max=300, eta_min=1e-6, by_epoch=True, begin=0, end=301),
]
train_cfg = dict(max_epochs=310)
default_hooks = dict(checkpoint=dict(max_keep_ckpts=3, save_best='accuracy/top1', rule='greater'))
# As in mmpretrain's default_runtime, but without the scope that mmengine adds to what is inherited from a package:
# mmpretrain's browse_dataset.py stops at it.
visualizer = dict(_delete_=True, type='UniversalVisualizer', vis_backends=[dict(type='LocalVisBackend')])
