"""coc_tiny on Fashion-MNIST, 500 steps from nothing.

tools/dist_train.sh configs/classification/coc-tiny_1xb32-500_fashion-mnist.py 1
"""

_base_ = '../_base_/1xb32-500_fashion-mnist.py'
import coc_core

arch = 'coc_tiny'
model = dict(
    type='ImageClassifier',
    # Layer scale starts where a short training can use it, as for the digits.
    backbone=dict(
        type='ContextCluster',
        arch=arch,
        in_channels=1,
        out_indices=(3,),
        output_norm='classification',
        layer_scale_init=0.1,
    ),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='LinearClsHead',
        num_classes=10,
        in_channels=coc_core.VARIANTS[arch].dims[-1],
        init_cfg=dict(type='TruncNormal', layer='Linear', std=0.02),
    ),
)
