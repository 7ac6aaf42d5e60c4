"""coc_tiny with the literal clustering operator on Fashion-MNIST.

tools/dist_train.sh configs/classification/coc-tiny-reference_1xb32-500_fashion-mnist.py 1
"""

_base_ = './coc-tiny_1xb32-500_fashion-mnist.py'

model = dict(backbone=dict(impl='reference'))
