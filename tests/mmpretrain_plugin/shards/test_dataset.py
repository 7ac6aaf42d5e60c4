"""Training's view of shards: the samples of the files they were made from, and what is said about bad ones."""

import json
import os

import numpy as np
import pytest
from mmengine import fileio
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmpretrain.datasets import ImageNet
from torch.utils.data import DataLoader

from coc_core.errors import UserError
from coc_core.mm.data_checks.checked_pipeline import check_samples
from coc_core.mm.data_checks.checks import check_data
from coc_core.mm.data_checks.reports import reports_of
from mmpretrain_plugin.shards import ShardedImageNet

PIPELINE = [dict(type='LoadImageFromFile'), dict(type='PackInputs')]
CLASSES = ['ant', 'bee', 'cat']


def build(root, kind=ShardedImageNet, **options):
    init_default_scope('mmpretrain')
    return kind(data_root=str(root), split='train', pipeline=PIPELINE, **{'metainfo': dict(classes=CLASSES), **options})


def config(root, classes=CLASSES):
    dataset = dict(
        type='ShardedImageNet', data_root=str(root), split='train', pipeline=PIPELINE, metainfo=dict(classes=classes)
    )
    return Config(
        dict(
            default_scope='mmpretrain',
            train_dataloader=dict(batch_size=2, sampler=dict(type='ShardSampler'), drop_last=True, dataset=dataset),
            model=dict(head=dict(num_classes=len(classes))),
        )
    )


def content(sample):
    return int(sample['data_samples'].gt_label), sample['inputs'].numpy().tobytes(), tuple(sample['inputs'].shape)


@pytest.mark.parametrize('workers', [0, 2])
def test_samples_are_those_of_the_files(images, shards, workers):
    files = build(images, ImageNet, extensions=('.JPEG', '.bmp'))
    dataset = build(shards)
    assert dataset.shard_sizes == [9, 9, 9, 3] and len(dataset) == len(files) == 30
    loader = DataLoader(dataset, batch_size=None, num_workers=workers, persistent_workers=workers > 0)
    for _ in range(2):
        found = [content(sample) for sample in loader]
        assert sorted(found) == sorted(content(files[index]) for index in range(30))


def test_an_image_has_an_address_that_any_reader_of_mmengine_takes(images, shards):
    info = build(shards).get_data_info(11)
    name = '/'.join(info['img_path'].rsplit('/', 2)[1:])
    assert info['img_path'].startswith(f'shard://{shards}/train/000001.tar/') and name.split('/')[0] in CLASSES
    assert fileio.get(info['img_path']) == (images / 'train' / name).read_bytes()
    with pytest.raises(UserError, match='is not of the form shard://TAR/OFFSET'):
        fileio.get('shard://000001.tar')


def test_classes_are_those_of_the_folders_or_of_a_file_that_names_them(shards, monkeypatch):
    monkeypatch.setattr(ShardedImageNet, 'METAINFO', {})
    assert build(shards, metainfo=None).metainfo['classes'] == tuple(CLASSES)
    named = dict(classes=str(shards / 'train' / 'classes.txt'))
    assert build(shards, metainfo=named).metainfo['classes'] == CLASSES


@pytest.mark.parametrize('checked', [False, True])
def test_a_damaged_image_stops_with_its_name(shards, checked):
    dataset = build(shards)
    if checked:
        check_samples(dataset)
    path = shards / 'train' / '000002.tar'
    dataset[20]
    damaged = bytearray(path.read_bytes())
    index = json.loads(path.with_suffix('.json').read_text())
    damaged[index['offsets'][2] + index['sizes'][2] // 2] ^= 1
    path.chmod(0o644)
    with path.open('r+b') as file:
        file.write(damaged)
    with pytest.raises(UserError, match=rf'{index["names"][2]} in the shard {path} is damaged: remove the shard and'):
        dataset[20]
    (report,) = reports_of(config(shards), ['train'], workers=1)
    (problem,) = report.problems
    assert f'{index["names"][2]} in the shard {path} is damaged' in problem['text'] and report.errors == 1


def test_the_data_check_counts_and_compares_classes(shards):
    check_data(config(shards), ['train'])
    (report,) = reports_of(config(shards), ['train'], workers=1)
    assert report.summary == '30 images of 3 classes in 4 shards' and report.problems == []
    for classes in (['ant', 'bee'], ['ant', 'bee', 'cat', 'dog']):
        sentence = (
            f'class folders ant, bee, cat, but the classes are {", ".join(classes)}: 3 folders for {len(classes)} '
        )
        with pytest.raises(UserError, match=sentence):
            check_data(config(shards, classes), ['train'])
        with pytest.raises(UserError, match=rf'hold 3 classes, but the data set has {len(classes)}: give the names in'):
            build(shards, metainfo=dict(classes=classes))
    assert isinstance(build(shards, metainfo=dict(classes=list('xyz'))), ShardedImageNet)


def remove_record(folder):
    (folder / 'shards.json').unlink()


def remove_shard(folder):
    (folder / '000001.json').unlink()
    (folder / '000001.tar').unlink()


def cut_shard(folder):
    path = folder / '000003.tar'
    os.truncate(path, path.stat().st_size - 512)


def spoil_index(folder):
    path = folder / '000000.json'
    path.write_bytes(path.read_bytes()[:-10])


@pytest.mark.parametrize(
    ('harm', 'sentence'),
    [
        (remove_record, r'train has no shards \(shards.json is missing\): make them with `python tools/dataset_conv'),
        (remove_shard, r'train has 3 of its 4 shards, the first that is missing is 000001.tar: run tools/dataset_co'),
        (cut_shard, r'000003.tar is damaged: it has [\d,]+ bytes and had [\d,]+. Run tools/dataset_converters/shard'),
        (spoil_index, r'000000.json cannot be read \(.*\): run tools/dataset_converters/shard_imagenet.py again'),
    ],
)
def test_shards_that_cannot_be_used_are_one_sentence(shards, harm, sentence):
    harm(shards / 'train')
    with pytest.raises(UserError, match=sentence):
        build(shards)
    with pytest.raises(UserError, match=f'^train data in {shards} cannot be used: .*{sentence}'):
        check_data(config(shards), ['train'])


def test_shards_that_are_nowhere_name_the_tool(tmp_path):
    with pytest.raises(UserError, match=r'imagenet-shards does not exist: make it with `python tools/.*shard_imagenet'):
        check_data(config(tmp_path / 'data' / 'imagenet-shards'), ['train'])


def test_a_class_without_images_is_told(shards):
    for path in (shards / 'train').glob('0*.json'):
        index = json.loads(path.read_text())
        index['labels'] = np.minimum(index['labels'], 1).tolist()
        path.write_text(json.dumps(index))
    with pytest.raises(UserError, match=r'train has no sample of 1 of the classes \(cat\)'):
        check_data(config(shards), ['train'])
