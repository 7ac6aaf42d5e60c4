"""ResNet-18 of timm on Fashion-MNIST, to compare with.

tools/dist_train.sh configs/classification/resnet18_1xb32-500_fashion-mnist.py 1
"""

_base_ = '../_base_/1xb32-500_fashion-mnist.py'

model = dict(type='TimmClassifier', model_name='resnet18', num_classes=10, in_chans=1)
