"""timm users get the same models."""

import subprocess
import sys

import pytest
import timm
import torch

import coc_core


def test_every_variant_is_registered():
    assert set(timm.list_models('coc_*')) == set(coc_core.VARIANTS)


def test_import_is_enough():
    code = "import coc_core, timm; print(sum(p.numel() for p in timm.create_model('coc_medium').parameters()))"
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == '29290520'


def test_import_needs_no_mm_package():
    code = (
        "import coc_core, sys; print([m for m in sys.modules if m.split('.')[0] in ('mmengine', 'mmcv', 'mmpretrain')])"
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == '[]'


def test_features_only_pads_and_adds_coordinates():
    model = timm.create_model('coc_tiny', features_only=True, out_indices=(1, 3))
    features = model(torch.randn(1, 3, 97, 131))
    assert [tuple(f.shape[1:]) for f in features] == [(64, 13, 17), (320, 4, 5)]
    assert model.feature_info.channels() == [64, 320] and model.feature_info.reduction() == [8, 32]


def test_timm_arguments():
    model = timm.create_model('coc_tiny', num_classes=5, in_chans=1, drop_path_rate=0.1, center_grid=3)
    assert model(torch.randn(2, 1, 32, 32)).shape == (2, 5)
    assert model.config.center_grid == (3, 3, 3, 3)
    with pytest.raises(ValueError, match="no field 'windows'"):
        timm.create_model('coc_tiny', windows=7)
