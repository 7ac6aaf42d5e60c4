"""Layer-wise learning rates from a config."""

import pytest
import timm
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from mmpretrain.registry import MODELS
from timm.optim import param_groups_layer_decay

import mmpretrain_plugin  # noqa: F401

SMALL = dict(depths=(1, 1, 2, 1), dims=(8, 12, 16, 20), heads=2, head_dim=4)


def classifier(backbone=None):
    init_default_scope('mmpretrain')
    backbone = backbone or dict(
        type='ContextCluster', arch='coc_tiny', out_indices=(3,), output_norm='classification', **SMALL
    )
    head = dict(type='LinearClsHead', num_classes=3, in_channels=20)
    return MODELS.build(dict(type='ImageClassifier', backbone=backbone, head=head))


def wrapped(model, **paramwise):
    optimizer = dict(type='AdamW', lr=0.1, weight_decay=0.05)
    constructor = 'LayerDecayOptimWrapperConstructor'
    return build_optim_wrapper(model, dict(optimizer=optimizer, constructor=constructor, paramwise_cfg=paramwise))


def test_rates_are_those_of_timm_and_other_options_hold():
    model = classifier()
    optimizer = wrapped(model, layer_decay_rate=0.5, flat_decay_mult=0.0).optimizer
    names = {parameter: name for name, parameter in model.named_parameters()}
    found = {
        names[g['params'][0]].replace('backbone.', '').replace('head.fc.', 'head.'): (g['lr'], g['weight_decay'])
        for g in optimizer.param_groups
    }
    plain = timm.create_model('coc_tiny', num_classes=3, **SMALL)
    plain_names = {parameter: name for name, parameter in plain.named_parameters()}
    expected = {
        plain_names[parameter]: (0.1 * group['lr_scale'], 0.05 if parameter.ndim > 1 else 0.0)
        for group in param_groups_layer_decay(plain, layer_decay=0.5)
        for parameter in group['params']
    }
    assert set(found) == set(expected)
    for name, values in expected.items():
        assert found[name] == pytest.approx(values), name


@pytest.mark.parametrize('rate', [None, 0, 1.5, 'half'])
def test_impossible_rates_are_refused(rate):
    with pytest.raises(ValueError, match=r'layer_decay_rate=.* must be a number in \(0, 1\]'):
        wrapped(classifier(), layer_decay_rate=rate, flat_decay_mult=0.0)


def test_other_backbones_are_refused():
    with pytest.raises(
        ValueError,
        match=r'needs a backbone that .* \(group_matcher\).* the model has LeNet5: set .*layer_decay_rate=1.0',
    ):
        wrapped(classifier(dict(type='LeNet5')), layer_decay_rate=0.5)


def rates(model, optimizer):
    names = {parameter: name for name, parameter in model.named_parameters()}
    return {names[group['params'][0]]: group['lr'] for group in optimizer.param_groups}


@pytest.mark.parametrize('name', ['test_resnet', 'test_convnext', 'test_vit'])
def test_models_of_timm_have_layers_of_their_own(name):
    init_default_scope('mmpretrain')
    model = MODELS.build(dict(type='TimmClassifier', model_name=name, num_classes=3))
    names = {parameter: f'model.{name}' for name, parameter in model.model.named_parameters()}
    expected = {
        names[parameter]: 0.1 * group['lr_scale']
        for group in param_groups_layer_decay(model.model, layer_decay=0.5)
        for parameter in group['params']
    }
    found = rates(model, wrapped(model, layer_decay_rate=0.5).optimizer)
    assert found == pytest.approx(expected)
    within = classifier(dict(type='TIMMBackbone', model_name=name))
    found = rates(within, wrapped(within, layer_decay_rate=0.5).optimizer)
    assert found['head.fc.weight'] == pytest.approx(0.1)
    if name == 'test_resnet':  # Without a head, the others' last norm is a layer of its own.
        assert min(found.values()) == pytest.approx(min(expected.values()))


def test_without_decay_any_backbone_will_do():
    model = classifier(dict(type='LeNet5'))
    assert set(rates(model, wrapped(model, layer_decay_rate=1.0).optimizer).values()) == {0.1}
