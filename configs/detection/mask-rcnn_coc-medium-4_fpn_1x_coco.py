"""Mask R-CNN on COCO with coc_medium, 4 centers in every region.

tools/dist_train.sh configs/detection/mask-rcnn_coc-medium-4_fpn_1x_coco.py 8

Published AP: box 38.6, mask 36.1.
"""

_base_ = '../_base_/mask-rcnn_coc_fpn_8xb4-1x_coco.py'
import coc_core

arch = 'coc_medium'
model = dict(
    backbone=dict(arch=arch, center_grid=2, init_cfg=dict(checkpoint=f'checkpoints/{arch}.pth')),
    neck=dict(in_channels=list(coc_core.VARIANTS[arch].dims)),
)
