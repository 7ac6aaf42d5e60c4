"""ImageNet in a few large files that are read front to back: how they are written, read and ordered.

`writing` makes them, once; `dataset` and `sampler` train on them; `index` is what they have in common.
"""

from mmpretrain_plugin.shards.dataset import ShardedImageNet as ShardedImageNet
from mmpretrain_plugin.shards.sampler import ShardSampler as ShardSampler
