"""Shards as they are written: for any reader of webdataset's form, with images as training sees them."""

import io
import tarfile

import cv2
import numpy as np
import pytest
import webdataset
from PIL import Image, ImageOps

from coc_core.errors import UserError
from coc_core.visualization.decoding import decode
from mmpretrain_plugin.own_data import images_in
from mmpretrain_plugin.shards.index import read_folder
from mmpretrain_plugin.shards.writing import Recipe, is_complete, pack, plan_shards, write_shard

RECIPE = Recipe(shorter_side=48, quality=95, shard_size=4, seed=0)


def scene(width, height):
    """A picture without fine detail, every corner of another color: uint8 [height, width, 3]."""
    rows, columns = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    return (255 * np.stack([rows, columns, (1 - rows) * columns], axis=2)).astype(np.uint8)


def kinds(folder):
    """Pictures of 96x64 as cameras and scanners leave them."""
    turned = Image.Exif()
    turned[274] = 6
    picture = Image.fromarray(scene(96, 64))
    for name, image, options in (
        ('plain.jpg', picture, {}),
        ('turned.jpg', picture, {'exif': turned}),
        ('gray.jpg', ImageOps.grayscale(picture), {}),
        ('cmyk.jpg', picture.convert('CMYK'), {}),
        ('alpha.png', picture.convert('RGBA'), {}),
        ('palette.gif', picture.quantize(256, dither=Image.Dither.NONE), {}),
        ('16-bit.png', Image.fromarray(scene(96, 64)[..., 1].astype(np.uint16) * 257), {}),
    ):
        path = folder / name
        image.save(path, **options)
        yield path


def test_large_images_become_what_training_sees_but_smaller(tmp_path):
    for path in kinds(tmp_path):
        packed = pack(path, RECIPE)
        assert (packed.ending, packed.resized) == ('jpg', True)
        seen = decode(path)
        (tmp_path / 'small.jpg').write_bytes(packed.content)
        small = decode(tmp_path / 'small.jpg')
        size = (48, 72) if path.name == 'turned.jpg' else (72, 48)
        assert small.shape == (*size[::-1], 3), path
        expected = cv2.resize(seen, size, interpolation=cv2.INTER_AREA)
        assert np.abs(small.astype(int) - expected).mean() < 3, path


@pytest.mark.parametrize('shorter_side', [64, 500, 0])
def test_others_keep_their_bytes(tmp_path, shorter_side):
    for path in kinds(tmp_path):
        packed = pack(path, Recipe(shorter_side, 95, 4, 0))
        assert packed.content == path.read_bytes() and not packed.resized
        assert packed.ending == path.suffix[1:]
    png = tmp_path / 'n02105855_2933.JPEG'
    (tmp_path / 'alpha.png').rename(png)
    assert pack(png, Recipe(shorter_side, 95, 4, 0)).ending == 'png'


def test_stock_webdataset_reads_them(images, shards):
    paths = sorted(str(path) for path in (shards / 'train').glob('*.tar'))
    assert len(paths) == 4
    found = {}
    for sample in webdataset.WebDataset(paths, shardshuffle=False):
        (content,) = (sample[ending] for ending in ('jpg', 'png', 'bmp') if ending in sample)
        found[content] = int(sample['cls'])
    classes = ('ant', 'bee', 'cat')
    assert found == {path.read_bytes(): classes.index(path.parent.name) for path in images.rglob('*.*')}
    decoding = webdataset.WebDataset(paths, shardshuffle=False).decode('rgb8').to_tuple('jpg;png;bmp', 'cls')
    labels = [label for pixels, label in decoding if pixels.shape[1:] == (30, 3)]
    assert sorted(labels) == [0] * 10 + [1] * 10 + [2] * 10
    # Images that follow each other are of many classes.
    assert all(len(set(labels[i : i + 9])) == 3 for i in range(0, 27, 9))


def test_the_index_tells_where_each_image_lies(images, shards):
    classes, indexes = read_folder(shards / 'train')
    assert classes == ['ant', 'bee', 'cat'] and [len(index) for index in indexes.values()] == [9, 9, 9, 3]
    for path, index in indexes.items():
        content = path.read_bytes()
        for name, offset, size, label in zip(index.names, index.offsets, index.sizes, index.labels, strict=True):
            assert content[offset : offset + size] == (images / 'train' / name).read_bytes()
            assert name.split('/')[0] == classes[label]


def test_the_same_images_and_recipe_give_the_same_bytes(images, tmp_path):
    found = images_in(images / 'train', ('.jpeg', '.bmp'))
    made = []
    for folder, seed in (('a', 0), ('b', 0), ('c', 1)):
        recipe = Recipe(16, 90, 20, seed)
        for path, entries in plan_shards(found, tmp_path / folder, recipe).items():
            write_shard(path, entries, recipe, skip=False)
        made.append({path.name: path.read_bytes() for path in (tmp_path / folder).iterdir()})
    assert sorted(made[0]) == ['000000.json', '000000.tar', '000001.json', '000001.tar', 'classes.txt', 'shards.json']
    assert made[0] == made[1] and made[0]['000000.tar'] != made[2]['000000.tar']


@pytest.mark.parametrize('skip', [False, True])
def test_an_image_that_cannot_be_read_is_named_and_its_shard_made_only_without_it(images, tmp_path, skip):
    torn = images / 'train' / 'bee' / '3.JPEG'
    torn.write_bytes(torn.read_bytes()[:-100])
    found = images_in(images / 'train', ('.jpeg', '.bmp'))
    shards = plan_shards(found, tmp_path / 'out', RECIPE)
    told = {path: write_shard(path, entries, RECIPE, skip=skip) for path, entries in shards.items()}
    ((path, (sentence,)),) = ((path, sentences) for path, sentences in told.items() if sentences)
    assert sentence == f'{torn} cannot be read as an image (it is truncated): replace or remove it.'
    assert path.exists() is path.with_suffix('.json').exists() is skip
    assert is_complete(path, skip=True) is skip and not is_complete(path, skip=False)
    if skip:
        with tarfile.open(path) as tar:
            images = [member for member in tar.getmembers() if not member.name.endswith('.cls')]
            assert len(images) == len(shards[path]) - 1
            assert all(Image.open(io.BytesIO(tar.extractfile(member).read())).size for member in images)


def test_a_folder_of_other_shards_is_not_overwritten(images, tmp_path):
    found = images_in(images / 'train', ('.jpeg', '.bmp'))
    plan_shards(found, tmp_path / 'out', RECIPE)
    with pytest.raises(UserError, match=r'out holds shards of other images or with other settings \(quality\): give a'):
        plan_shards(found, tmp_path / 'out', Recipe(48, 80, 4, 0))
    (images / 'train' / 'ant' / '0.JPEG').unlink()
    with pytest.raises(UserError, match=r'other settings \(images, list of images\)'):
        plan_shards(images_in(images / 'train', ('.jpeg', '.bmp')), tmp_path / 'out', RECIPE)
