"""Point-cloud checkpoints in every form say where they come from, and hold what that form's reader expects."""

import copy
import re

import pytest
import torch

import pointcloud
from coc_core.checkpoints import convert, load, load_content, read, to_official
from pointcloud.classifier import PointCloudClassifier
from pointcloud.models import PointMLP


@pytest.fixture
def published(tmp_path):
    torch.manual_seed(0)
    model = pointcloud.create_model('pointmlp_elite')
    torch.save({'net': to_official(model.state_dict()), 'acc': 86.2}, tmp_path / 'published.pth')
    return model.state_dict()


@pytest.mark.parametrize('form', ['pth', 'safetensors'])
def test_a_published_cloud_in_our_names_records_its_origin(published, tmp_path, form):
    out = tmp_path / f'ours.{form}'
    convert(tmp_path / 'published.pth', out, form)
    written = read(out)
    assert written.keys() == {'state_dict', 'meta'} and written['meta']['task'] == 'points'
    report = load(pointcloud.create_model('pointmlp_elite'), out)
    assert report.origin == 'published point-cloud checkpoint, converted' and report.loaded == len(published)


def test_the_published_form_is_what_the_published_code_saves(published, tmp_path):
    torch.save(published, tmp_path / 'ours.pth')
    convert(tmp_path / 'ours.pth', tmp_path / 'back.pth', 'published')
    written, expected = read(tmp_path / 'back.pth'), to_official(published)
    assert written.keys() == {'net'} and written['net'].keys() == expected.keys()
    assert all(torch.equal(written['net'][key], value) for key, value in expected.items())


def test_weights_of_another_trunk_are_told(tmp_path):
    model = pointcloud.create_model('pointmlp_elite')
    text = "model = dict(type='PointCloudClassifier', backbone=dict(type='MyTrunk', arch='pointmlp_elite'))"
    torch.save({'state_dict': model.state_dict(), 'meta': {'cfg': text}}, tmp_path / 'epoch_1.pth')
    assert load(model, tmp_path / 'epoch_1.pth').otherwise == ('by the backbone MyTrunk where this model has PointMLP',)
    model.backbone.__class__ = type('MyTrunk', (type(model.backbone),), {})
    assert not load(model, tmp_path / 'epoch_1.pth').otherwise


class OwnTrunk(PointMLP):
    """Takes an argument that no weight shows."""

    def __init__(self, *args, reducers='mean', **others):
        super().__init__(*args, **others)


@pytest.mark.parametrize(
    ('entries', 'built', 'told'),
    [
        ('neighbors=12', {}, 'with neighbors=12 where this model has 24'),
        ('', dict(neighbors=6), 'with neighbors=24 where this model has 6'),
        ('anchors=[256, 128, 64, 32]', {}, r'with anchors=\(256, 128, 64, 32\) where this model has \(512, 256, 128,'),
        ('anchors=512, neighbors=24', {}, r'with anchors=\(512, 512, 512, 512\) where'),
        ("reducers='max'", {}, "with reducers='max' where this model has the default"),
        ('', dict(reducers=['max', 'mean']), r"with reducers=the default where this model has \('max', 'mean'\)"),
        ("reducers=['max']", dict(reducers=['max']), None),
        ('embed_dim=32, neighbors=24, anchors=[512, 256, 128, 64]', {}, None),
    ],
)
def test_numbers_and_arguments_that_weights_do_not_show_are_told(entries, built, told):
    model = PointCloudClassifier(
        dict(type=OwnTrunk, arch='pointmlp_elite', **built), dict(type='PointClsHead', num_classes=3, hidden=(4,))
    )
    text = f"model = dict(backbone=dict(type='OwnTrunk', arch='pointmlp_elite', {entries}), head=dict(num_classes=3))"
    content = {'state_dict': model.state_dict(), 'meta': {'cfg': text}}
    # As the average of a training is a copy.
    report = load_content(copy.deepcopy(model), content, 'epoch_1.pth')
    assert len(report.otherwise) == bool(told)
    assert not told or re.match(told, report.otherwise[0])
