"""coc_tiny on ImageNet-1k.

tools/dist_train.sh configs/classification/coc-tiny_8xb128_in1k.py 8

Published top-1: 73.2 % (May 2023 weights; 71.8 % in the first release).
"""

_base_ = '../_base_/coc_8xb128_in1k.py'

model = dict(backbone=dict(arch='coc_tiny'), head=dict(in_channels=320))
