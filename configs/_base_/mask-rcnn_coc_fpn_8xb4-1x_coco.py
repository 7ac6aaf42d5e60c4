"""Mask R-CNN with a Context Cluster backbone and FPN; a child config names the variant."""

_base_ = ['mmdet::_base_/models/mask-rcnn_r50_fpn.py', './coc_8xb4-1x_coco.py']

model = dict(
    backbone=dict(_delete_=True, type='ContextCluster', arch=None, init_cfg=dict(type='Pretrained', checkpoint=None)),
    neck=dict(in_channels=None),
    rpn_head=dict(type='Float32RPNHead'),
    roi_head=dict(
        bbox_roi_extractor=dict(type='Float32RoIExtractor'),
        mask_roi_extractor=dict(type='Float32RoIExtractor'),
    ),
)
