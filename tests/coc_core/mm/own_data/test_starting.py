"""What a training on one's own data begins with."""

import pytest
import torch

from coc_core.checkpoints.layouts import CLASSIFICATION
from coc_core.errors import UserError
from coc_core.mm.backbone import ContextClusterBackbone
from coc_core.mm.own_data.starting import start_of_images


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """A function that writes what a training with a mixer leaves, as far as it matters here."""
    weights = {f'backbone.{name}': value for name, value in ContextClusterBackbone('coc_tiny').state_dict().items()}

    def write(mixer):
        path = tmp_path_factory.mktemp('training') / 'epoch_1.pth'
        cfg = f"model = dict(type='ImageClassifier', backbone=dict(type='ContextCluster', arch='coc_tiny'{mixer}))"
        torch.save(dict(state_dict=weights, meta=dict(cfg=cfg)), path)
        return str(path)

    return write


def test_a_training_starts_from_the_stock_mixer_and_from_no_other(trained):
    stock = trained('')
    start = start_of_images(stock, 'coc_tiny', CLASSIFICATION)
    assert start.pretrained and stock in start.backbone['init_cfg']
    soft = trained(", mixer=dict(type='SoftMixer')")
    with pytest.raises(UserError, match='trained with the mixer SoftMixer, .* leave the file out') as caught:
        start_of_images(soft, 'coc_tiny', CLASSIFICATION)
    assert str(caught.value).startswith(f'--checkpoint {soft} ')
