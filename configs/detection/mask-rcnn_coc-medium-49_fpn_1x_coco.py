"""Mask R-CNN on COCO with coc_medium, 49 centers in every region.

tools/dist_train.sh configs/detection/mask-rcnn_coc-medium-49_fpn_1x_coco.py 8

Published AP: box 40.6, mask 37.6.
The published file of this variant takes 2 images a GPU at the same learning rate, and so does this one.
"""

_base_ = '../_base_/mask-rcnn_coc_fpn_8xb4-1x_coco.py'
import coc_core

arch = 'coc_medium'
model = dict(
    backbone=dict(arch=arch, center_grid=7, init_cfg=dict(checkpoint=f'checkpoints/{arch}.pth')),
    neck=dict(in_channels=list(coc_core.VARIANTS[arch].dims)),
)
train_dataloader = dict(batch_size=2)
auto_scale_lr = dict(base_batch_size=16)
