"""coc_medium on ImageNet-1k.

tools/dist_train.sh configs/classification/coc-medium_8xb128_in1k.py 8

Published top-1: 81.2 % (81.0 % in the first release).
"""

_base_ = '../_base_/coc_8xb128_in1k.py'

model = dict(backbone=dict(arch='coc_medium'))
