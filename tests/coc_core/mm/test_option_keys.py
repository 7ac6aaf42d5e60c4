"""Keys of ``--cfg-options``: those that change something pass, others are named with their neighbors."""

from pathlib import Path

import pytest
from mmengine.config import Config

from coc_core.errors import UserError
from coc_core.mm.option_keys import check_option_keys, check_value_keys

CONFIG = Path(__file__).parents[3] / 'configs' / 'classification' / 'coc-tiny_1xb32-12e_digits.py'


@pytest.mark.parametrize(
    'key',
    [
        'train_cfg.max_epochs',
        'train_dataloader.prefetch_factor',
        'model.head.init_cfg',
        'load_from',
        'default_hooks.early_stopping',
        'train_dataloader.dataset.test_mode',
        'optim_wrapper.clip_grad',
        'randomness.deterministic',
        'model.head.topk',
        'auto_scale_lr.enable',
        'train_dataloader.dataset.pipeline.0.to_float32',
    ],
)
def test_known_option_keys(key):
    check_option_keys(Config.fromfile(CONFIG), {key: None})


@pytest.mark.parametrize(
    'key',
    [
        'modle.backbone.type',
        'model.backbone.archh',
        'model.backbone.type.x',
        'train_dataloader.dataset.data_rot',
        'train_dataloader.dataset.pipeline.7.type',
        'randomness.sed',
        'train_dataloader.batchsize',
    ],
)
def test_unknown_option_keys(key):
    with pytest.raises(UserError, match=f'--cfg-options {key}: '):
        check_option_keys(Config.fromfile(CONFIG), {key: None})


@pytest.mark.parametrize('key', ['data_root', 'train_pipeline.1.scale', 'classes'])
def test_a_variable_of_the_config_would_change_nothing(key):
    with pytest.raises(UserError, match=f'{key.split(".")[0]} is a variable of the config'):
        check_option_keys(Config.fromfile(CONFIG), {key: None})


def test_an_option_inside_another_is_refused_whatever_their_order():
    options = ['train_cfg.max_epochs', 'train_cfg']
    for keys in options, options[::-1]:
        with pytest.raises(
            UserError, match='--cfg-options train_cfg and train_cfg.max_epochs: the second is in the first'
        ):
            check_option_keys(Config.fromfile(CONFIG), dict.fromkeys(keys))


@pytest.mark.parametrize(
    ('key', 'value'),
    [
        ('optim_wrapper.optimizer', {'betas': (0.9, 0.99)}),
        ('optim_wrapper.optimizer', {'type': 'SGD', 'momentum': 0.9}),
        ('optim_wrapper.optimizer', {'_delete_': True, 'anything': 1}),
        ('optim_wrapper.paramwise_cfg', {'custom_keys': {'.norm': {'decay_mult': 0.0}}}),
        ('train_cfg', {'max_epochs': 3}),
        ('train_cfg', None),
    ],
)
def test_known_keys_in_a_dict(key, value):
    cfg = Config.fromfile(CONFIG)
    check_value_keys(cfg, key, value, cfg.get(key) if '.' not in key else cfg.optim_wrapper.get(key.split('.')[1]))


@pytest.mark.parametrize(
    ('key', 'value', 'sentence'),
    [
        (
            'train_cfg',
            {'max_epoch': 3},
            "train_cfg.max_epoch: train_cfg has no key 'max_epoch'. Did you mean 'max_epochs'",
        ),
        ('optim_wrapper', {'optimizer': {'lrr': 1}}, 'optim_wrapper.optimizer.lrr: optim_wrapper.optimizer has no key'),
        ('train_dataloader', {1: 2}, 'train_dataloader.1: train_dataloader has no key 1.'),
    ],
)
def test_unknown_keys_in_a_dict(key, value, sentence):
    cfg = Config.fromfile(CONFIG)
    with pytest.raises(UserError, match=f'--cfg-options {sentence}'):
        check_value_keys(cfg, key, value, cfg[key])


def test_an_unknown_key_beside_keys_that_are_no_strings_is_a_sentence():
    cfg = Config(dict(label_map={0: 0, 11: 1}))
    with pytest.raises(UserError, match=r"--cfg-options label_map.1: label_map has no key 1. Did you mean '11'\?"):
        check_value_keys(cfg, 'label_map', {1: 2}, cfg.label_map)
