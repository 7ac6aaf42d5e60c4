"""Mask R-CNN on COCO with coc_small, 49 centers in every region.

tools/dist_train.sh configs/detection/mask-rcnn_coc-small-49_fpn_1x_coco.py 8

Published AP: box 37.2, mask 34.9.
"""

_base_ = '../_base_/mask-rcnn_coc_fpn_8xb4-1x_coco.py'
import coc_core

arch = 'coc_small'
model = dict(
    backbone=dict(arch=arch, center_grid=7, init_cfg=dict(checkpoint=f'checkpoints/{arch}.pth')),
    neck=dict(in_channels=list(coc_core.VARIANTS[arch].dims)),
)
