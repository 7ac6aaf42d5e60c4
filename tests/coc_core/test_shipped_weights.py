"""The weights that come with the package: they are loaded by name, offline, and know the digits that were held back."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from processes import run_tool
from safetensors import safe_open
from timm.data import create_transform, resolve_data_config

from coc_core.checkpoints import CheckpointError
from coc_core.layers import ClusterMixer

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope='module')
def pictures(tmp_path_factory):
    """The held-back digits as the demo has them: folders of one class each."""
    out = tmp_path_factory.mktemp('digits')
    tool = ROOT / 'tools' / 'dataset_converters' / 'make_digits_data.py'
    done = run_tool(tool, '--out', out, '--layout', 'imagenet')
    assert done.returncode == 0, done.stderr
    return sorted((out / 'imagenet' / 'val').glob('*/*.png'))


def test_digits_are_recognized(pictures):
    model = timm.create_model('coc_tiny.digits', pretrained=True).eval()
    transform = create_transform(**resolve_data_config({}, model=model))
    images = torch.stack([transform(Image.open(path).convert('RGB')) for path in pictures])
    with torch.inference_mode():
        found = model(images).argmax(dim=1).tolist()
    names = model.pretrained_cfg['label_names']
    right = [names[label] == path.parent.name for label, path in zip(found, pictures, strict=True)]
    assert len(right) == 360 and np.mean(right) >= 0.98


def test_weights_are_taken_by_name_alone():
    assert timm.list_pretrained('coc_*') == ['coc_tiny.digits']
    assert timm.create_model('coc_tiny').num_classes == 1000
    with pytest.raises(RuntimeError, match='No pretrained weights exist for coc_tiny'):
        timm.create_model('coc_tiny', pretrained=True)


def test_the_file_is_what_its_name_says():
    path = Path(timm.get_pretrained_cfg('coc_tiny.digits').file)
    assert hashlib.sha256(path.read_bytes()).hexdigest()[:8] in path.name
    with safe_open(path, 'pt') as file:
        meta = file.metadata()
    assert meta['denominator'] == 'similarity' and 'top1' in meta['metric']


class Soft(ClusterMixer):
    def assign(self, z_GMN):
        return z_GMN.softmax(dim=1)


def test_another_layer_does_not_take_the_weights_unasked():
    with pytest.raises(CheckpointError, match='was trained with the mixer ClusterMixer, but the model was built with'):
        timm.create_model('coc_tiny.digits', pretrained=True, mixer=Soft)
