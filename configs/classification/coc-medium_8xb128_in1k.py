"""coc_medium on ImageNet-1k.

tools/dist_train.sh configs/classification/coc-medium_8xb128_in1k.py 8

Published top-1: 81.2 % (81.0 % in the first release).
"""

_base_ = '../_base_/coc_8xb128_in1k.py'
import coc_core

arch = 'coc_medium'
model = dict(backbone=dict(arch=arch), head=dict(in_channels=coc_core.VARIANTS[arch].dims[-1]))
