"""coc_small on ImageNet-1k.

tools/dist_train.sh configs/classification/coc-small_8xb128_in1k.py 8

Published top-1: 78.1 % (77.5 % in the first release).
"""

_base_ = '../_base_/coc_8xb128_in1k.py'
import coc_core

arch = 'coc_small'
model = dict(backbone=dict(arch=arch), head=dict(in_channels=coc_core.VARIANTS[arch].dims[-1]))
