"""Mask R-CNN on COCO with coc_small, 4 centers in every region.

tools/dist_train.sh configs/detection/mask-rcnn_coc-small-4_fpn_1x_coco.py 8

Published AP: box 35.9, mask 33.8.
"""

_base_ = '../_base_/mask-rcnn_coc_fpn_8xb4-1x_coco.py'
import coc_core

arch = 'coc_small'
model = dict(
    backbone=dict(arch=arch, center_grid=2, init_cfg=dict(checkpoint=f'checkpoints/{arch}.pth')),
    neck=dict(in_channels=list(coc_core.VARIANTS[arch].dims)),
)
