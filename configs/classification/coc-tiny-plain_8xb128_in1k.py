"""coc_tiny_plain on ImageNet-1k.

tools/dist_train.sh configs/classification/coc-tiny-plain_8xb128_in1k.py 8

Published top-1: 73.8 %.
"""

_base_ = '../_base_/coc_8xb128_in1k.py'

model = dict(backbone=dict(arch='coc_tiny_plain'), head=dict(in_channels=320))
