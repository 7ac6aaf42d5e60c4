"""A training on shards that was cut goes on as one in one go, whatever its workers and processes."""

import pytest

from mmpretrain_plugin.own_data import images_in
from mmpretrain_plugin.shards.writing import Recipe, plan_shards, write_shard

SHARDS = """
train_dataloader = dict(
    persistent_workers=True, sampler=dict(type='ShardSampler', window=4),
    dataset=dict(_delete_=True, type='ShardedImageNet', data_root='shards', split='train',
                 metainfo=dict(classes=['class0', 'class1']), pipeline={{_base_.train_pipeline}}))
"""


@pytest.fixture
def sharded(project):
    """The survival project's images in seven shards, and a config that trains on them."""
    recipe = Recipe(shorter_side=36, quality=95, shard_size=3, seed=0)
    images = images_in(project.folder / 'images' / 'train', ('.png',))
    for path, entries in plan_shards(images, project.folder / 'shards' / 'train', recipe).items():
        write_shard(path, entries, recipe, skip=False)
    return project.config('shards', SHARDS)


def test_a_training_cut_inside_an_epoch_goes_on_as_if_nothing_had_happened(project, sharded, differences, cut):
    workers = ('--cfg-options', 'train_dataloader.num_workers=')
    assert project.train(sharded, 'shards in one go', workers[0], f'{workers[1]}2') == 0
    for step, number in ((2, 0), (8, 1)):
        options = (workers[0], f'{workers[1]}{number}')
        assert project.train(sharded, 'shards cut', '--resume', *options, actions={step: cut}) == 143
    assert project.train(sharded, 'shards cut', '--resume') == 0
    states = [project.state(work, 'epoch_3.pth') for work in ('shards in one go', 'shards cut')]
    assert differences(*states) == []
