"""coc_tiny on ImageNet-1k from shards, in which images of more than 512 pixels are smaller: another recipe.

python tools/dataset_converters/shard_imagenet.py --data data/imagenet --out data/imagenet-shards
tools/dist_train.sh configs/classification/coc-tiny_8xb128_in1k-shards.py 8

Images are validated from their files in data/imagenet/val. Published top-1: none published.
"""

_base_ = './coc-tiny_8xb128_in1k.py'

train_dataloader = dict(
    sampler=dict(type='ShardSampler'), dataset=dict(type='ShardedImageNet', data_root='data/imagenet-shards')
)
