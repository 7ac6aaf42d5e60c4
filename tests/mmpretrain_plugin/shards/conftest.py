"""A folder of images as ImageNet has them, and its shards."""

import numpy as np
import pytest
from PIL import Image

from mmpretrain_plugin.own_data import images_in
from mmpretrain_plugin.shards.writing import Recipe, plan_shards, write_shard


@pytest.fixture
def images(tmp_path):
    """Thirty images of three classes, some of another format than their name says, in the folder ``images/train``."""
    random = np.random.default_rng(0)
    for label, name in enumerate(('ant', 'bee', 'cat')):
        folder = tmp_path / 'images' / 'train' / name
        folder.mkdir(parents=True)
        for number in range(10):
            pixels = random.integers(80 * label, 80 * label + 80, (20 + number, 30, 3), dtype=np.uint8)
            kind = ('JPEG', 'PNG', 'BMP')[max(0, number - 7)]
            Image.fromarray(pixels).save(folder / f'{number}.{"bmp" if kind == "BMP" else "JPEG"}', kind)
    return tmp_path / 'images'


@pytest.fixture
def shards(images, tmp_path):
    """The same in four shards, in the folder ``shards/train``; no image was made smaller."""
    found = images_in(images / 'train', ('.jpeg', '.bmp'))
    recipe = Recipe(shorter_side=512, quality=95, shard_size=9, seed=0)
    for path, entries in plan_shards(found, tmp_path / 'shards' / 'train', recipe).items():
        assert write_shard(path, entries, recipe, skip=False) == []
    return tmp_path / 'shards'
