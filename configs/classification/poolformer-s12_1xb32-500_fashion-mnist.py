"""PoolFormer-S12 of timm on Fashion-MNIST, to compare with.

tools/dist_train.sh configs/classification/poolformer-s12_1xb32-500_fashion-mnist.py 1
"""

_base_ = '../_base_/1xb32-500_fashion-mnist.py'

model = dict(type='TimmClassifier', model_name='poolformer_s12', num_classes=10, in_chans=1)
