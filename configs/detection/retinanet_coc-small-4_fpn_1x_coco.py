"""RetinaNet on COCO with coc_small, 4 centers in every region: another head on the same backbone.

tools/dist_train.sh configs/detection/retinanet_coc-small-4_fpn_1x_coco.py 8

There is no published result. RetinaNet reads no stride-4 map, so the backbone does not make one (``out_indices``), and
the neck starts at the first map that it gets.
"""

_base_ = ['mmdet::_base_/models/retinanet_r50_fpn.py', '../_base_/coc_8xb4-1x_coco.py']
import coc_core

arch = 'coc_small'
out_indices = (1, 2, 3)
model = dict(
    backbone=dict(
        _delete_=True,
        type='ContextCluster',
        arch=arch,
        center_grid=2,
        out_indices=out_indices,
        init_cfg=dict(type='Pretrained', checkpoint=f'checkpoints/{arch}.pth'),
    ),
    neck=dict(in_channels=[coc_core.VARIANTS[arch].dims[i] for i in out_indices], start_level=0),
)

# Boxes alone: masks are neither loaded nor evaluated.
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='Resize', scale=(1333, 800), keep_ratio=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(1333, 800), keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(metric='bbox')
test_evaluator = val_evaluator
