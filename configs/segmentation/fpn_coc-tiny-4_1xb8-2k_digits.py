"""Semantic FPN with coc_tiny on 600 scenes of scanned digits, tested on 150 scenes of held-back scans, on two cores.

make demo TASK=segmentation

starts from the checkpoint of the classification demo. By hand, after ``make demo``:

python tools/dataset_converters/make_digits_data.py --layout ade20k
tools/dist_train.sh configs/segmentation/fpn_coc-tiny-4_1xb8-2k_digits.py 1

Expected mIoU over the background and ten digits: about 55 %, after twelve minutes in which training does not come to
its end: twice the iterations give about ten points more. The demo trains in bfloat16 (--amp-dtype bfloat16) where the
processor has it.
"""

_base_ = '../_base_/fpn_coc_4xb4-80k_ade20k-512x512.py'
import coc_core

arch = 'coc_tiny'
data_root = 'data/digits/ade20k'
classes = ['background', *'0123456789']
palette = [
    [90, 90, 90], [230, 159, 0], [86, 180, 233], [0, 158, 115], [240, 228, 66], [0, 114, 178],
    [213, 94, 0], [204, 121, 167], [150, 75, 0], [148, 103, 189], [255, 255, 255],
]  # fmt: skip
scale = (144, 144)
crop_size = (96, 96)
iterations = 2400
# Neck and head of a size that two cores train in minutes.
width = 128

data_preprocessor = dict(size=crop_size)
model = dict(
    data_preprocessor=data_preprocessor,
    backbone=dict(
        arch=arch,
        layer_scale_init=0.1,
        init_cfg=dict(checkpoint='work_dirs/demo/classification/epoch_12.pth'),
    ),
    neck=dict(in_channels=list(coc_core.VARIANTS[arch].dims), out_channels=width),
    decode_head=dict(
        in_channels=[width] * 4,
        channels=width,
        dropout_ratio=0.0,
        num_classes=len(classes),
        norm_cfg=dict(type='BN'),
        # Seven eighths of the pixels are background, which is learned at once; which digit it is takes the time.
        loss_decode=dict(_delete_=True, type='WeightedCrossEntropyLoss', class_weight=[0.2] + [1.0] * 10),
    ),
    # Windows of the size that it was trained with: the regions of a map grow with the map.
    test_cfg=dict(mode='slide', crop_size=crop_size, stride=(48, 48)),
)
# A digit turned over is another digit: no flip.
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='RandomResize', scale=scale, ratio_range=(0.8, 1.25), keep_ratio=True),
    dict(type='RandomCrop', crop_size=crop_size, cat_max_ratio=0.8),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=scale, keep_ratio=True),
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]
# ADE20KDataset is this class with ADE20K's 150 names and reduce_zero_label.
_dataset = dict(
    type='BaseSegDataset',
    data_root=data_root,
    metainfo=dict(classes=classes, palette=palette),
    reduce_zero_label=True,
)
train_dataloader = dict(batch_size=8, num_workers=1, dataset=dict(**_dataset, pipeline=train_pipeline))
val_dataloader = dict(batch_size=5, num_workers=1, dataset=dict(**_dataset, pipeline=test_pipeline))
test_dataloader = val_dataloader

optim_wrapper = dict(optimizer=dict(lr=2e-3))
auto_scale_lr = dict(base_batch_size=8)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(type='PolyLR', power=0.9, eta_min=0.0, begin=50, end=iterations, by_epoch=False),
]
train_cfg = dict(max_iters=iterations, val_interval=iterations // 2)
# The last iteration is the result: none is chosen by its score on the held-back scenes.
default_hooks = dict(logger=dict(interval=10), checkpoint=dict(interval=iterations // 2, max_keep_ckpts=1))
# How clusters form, on two held-back images, enlarged so that every region has points to group.
custom_hooks = [dict(type='ClusterVisualizationHook', samples=2, interval=75, by_epoch=False, size=256)]
randomness = dict(seed=0)
