"""coc_tiny2 on ImageNet-1k.

tools/dist_train.sh configs/classification/coc-tiny2_8xb128_in1k.py 8

Published top-1: none published.
"""

_base_ = '../_base_/coc_8xb128_in1k.py'
import coc_core

arch = 'coc_tiny2'
model = dict(backbone=dict(arch=arch), head=dict(in_channels=coc_core.VARIANTS[arch].dims[-1]))
