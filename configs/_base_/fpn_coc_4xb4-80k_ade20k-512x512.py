"""Semantic FPN with a Context Cluster backbone; a child config names the variant."""

_base_ = ['mmseg::_base_/models/fpn_r50.py', './coc_4xb4-80k_ade20k-512x512.py']

data_preprocessor = dict(size=(512, 512))
model = dict(
    data_preprocessor=data_preprocessor,
    pretrained=None,
    backbone=dict(_delete_=True, type='ContextCluster', arch=None, init_cfg=dict(type='Pretrained', checkpoint=None)),
    neck=dict(in_channels=None),
    decode_head=dict(num_classes=150),
)
