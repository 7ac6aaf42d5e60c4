"""coc_base_dim96 on ImageNet-1k.

tools/dist_train.sh configs/classification/coc-base-dim96_8xb128_in1k.py 8

Published top-1: none published.
"""

_base_ = '../_base_/coc_8xb128_in1k.py'

model = dict(backbone=dict(arch='coc_base_dim96'), head=dict(in_channels=768))
