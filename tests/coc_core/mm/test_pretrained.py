"""Weights that timm and mmengine load into models of other packages."""

import logging
import re
from types import SimpleNamespace

import pytest
import timm
import torch
from mmengine.config import Config
from mmengine.hooks import EMAHook
from mmengine.registry import init_default_scope
from mmpretrain.registry import MODELS

import mmpretrain_plugin  # noqa: F401
from coc_core.errors import UserError
from coc_core.mm.pretrained import start_as_given

SMALL = 'test_resnet'


@pytest.fixture
def weights(tmp_path):
    """A file for a small model of timm, every weight of which is 0.25."""
    state = timm.create_model(SMALL, num_classes=3).state_dict()
    path = tmp_path / 'small.pth'
    torch.save({name: torch.full_like(value, 0.25) for name, value in state.items()}, path)
    return str(path)


def started(model, caplog, hooks=(), **entries):
    """Return the model of a config as a training starts with it, and what is told."""
    init_default_scope('mmpretrain')
    cfg = Config(dict(model=model, **entries))
    built = MODELS.build(dict(**model, **entries))
    caplog.set_level(logging.WARNING)
    start_as_given(SimpleNamespace(model=built, cfg=cfg, hooks=hooks, logger=logging.getLogger('run')))
    built.init_weights()
    return built, [record.message for record in caplog.records if record.name == 'run']


def share(model):
    """Return how many of the parameters, of those that are of a size, are as in the file."""
    found = [bool((parameter == 0.25).all()) for parameter in model.parameters()]
    return sum(found) / len(found)


def test_a_model_of_timm_starts_from_the_file_that_it_is_given(weights, caplog):
    entries = dict(type='TimmClassifier', model_name=SMALL, num_classes=3)
    model, told = started(dict(**entries, checkpoint_path=weights), caplog)
    assert share(model) == 1 and not told
    model, _ = started(dict(**entries), caplog)
    assert share(model) == 0


@pytest.mark.parametrize('kind', ['TimmClassifier', 'TIMMBackbone'])
@pytest.mark.parametrize(
    ('mean', 'told'),
    [([123.7, 116.3, 103.5], None), ([127.5] * 3, r'on images of mean \[123.67.*makes mean \[127.5'), (None, 'mean')],
)
def test_images_of_another_normalization_than_timms_are_told(weights, caplog, kind, mean, told):
    timms = dict(file=weights, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), num_classes=3)
    entries = dict(model_name=SMALL, pretrained=True, pretrained_cfg_overlay=timms)
    model = dict(type='TimmClassifier', num_classes=3, **entries)
    if kind == 'TIMMBackbone':
        model = dict(type='ImageClassifier', backbone=dict(type=kind, num_classes=3, **entries))
    given = {} if mean is None else dict(mean=mean, std=[58.4, 57.1, 57.4])
    model, found = started(model, caplog, data_preprocessor=dict(**given))
    assert share(model) == 1
    assert len(found) == bool(told)
    if told:
        assert re.search(told, found[0]) and 'set mean and std of data_preprocessor' in found[0]


def test_a_model_that_cannot_be_averaged_is_refused(caplog):
    model = dict(type='TimmClassifier', model_name=SMALL, num_classes=3)
    with pytest.raises(UserError, match=r'EMAHook cannot average TimmClassifier, .*TIMMBackbone'):
        started(model, caplog, hooks=[EMAHook()])
    backbone = dict(type='TIMMBackbone', model_name=SMALL)
    started(dict(type='ImageClassifier', backbone=backbone), caplog, hooks=[EMAHook()])


def classifier(path, **entries):
    init = dict(type='Pretrained', checkpoint=str(path), **entries)
    head = dict(type='LinearClsHead', num_classes=3, in_channels=512)
    return dict(type='ImageClassifier', backbone=dict(type='ResNet', depth=18, init_cfg=init), head=head)


def test_a_file_of_which_nothing_fits_is_no_start(weights, tmp_path, caplog):
    init_default_scope('mmpretrain')
    backbone = MODELS.build(dict(type='ResNet', depth=18))
    torch.save({f'backbone.{name}': value for name, value in backbone.state_dict().items()}, tmp_path / 'whole.pth')
    with pytest.raises(UserError, match=r'whole.pth holds nothing that fits ResNet, .* conv1.weight: .*prefix='):
        started(classifier(tmp_path / 'whole.pth'), caplog)
    model, _ = started(classifier(tmp_path / 'whole.pth', prefix='backbone.'), caplog)
    assert torch.equal(model.backbone.conv1.weight, backbone.conv1.weight)
