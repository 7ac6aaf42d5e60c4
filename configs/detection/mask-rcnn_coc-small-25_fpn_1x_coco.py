"""Mask R-CNN on COCO with coc_small, 25 centers in every region.

tools/dist_train.sh configs/detection/mask-rcnn_coc-small-25_fpn_1x_coco.py 8

Published AP: box 37.5, mask 35.4.
"""

_base_ = '../_base_/mask-rcnn_coc_fpn_8xb4-1x_coco.py'
import coc_core

arch = 'coc_small'
model = dict(
    backbone=dict(arch=arch, center_grid=5, init_cfg=dict(checkpoint=f'checkpoints/{arch}.pth')),
    neck=dict(in_channels=list(coc_core.VARIANTS[arch].dims)),
)
