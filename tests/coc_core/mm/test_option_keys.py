"""Keys of ``--cfg-options``: those that change something pass, others are named with their neighbors."""

from pathlib import Path

import pytest
from mmengine.config import Config

from coc_core.errors import UserError
from coc_core.mm.option_keys import check_option_keys

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
