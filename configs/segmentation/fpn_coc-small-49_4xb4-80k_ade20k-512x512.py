"""Semantic FPN on ADE20K with coc_small, 49 centers in every region.

tools/dist_train.sh configs/segmentation/fpn_coc-small-49_4xb4-80k_ade20k-512x512.py 4

Published mIoU: 36.3.
"""

_base_ = '../_base_/fpn_coc_4xb4-80k_ade20k-512x512.py'
import coc_core

arch = 'coc_small'
model = dict(
    backbone=dict(arch=arch, center_grid=7, init_cfg=dict(checkpoint=f'checkpoints/{arch}.pth')),
    neck=dict(in_channels=list(coc_core.VARIANTS[arch].dims)),
)
