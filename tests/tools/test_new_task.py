"""A task that this project has never heard of, defined in ``depth_task.py`` alone, through the tools as they are."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from processes import run_tool

ROOT = Path(__file__).parents[2]
ARCH = dict(depths=(1, 1), dims=(8, 12), mlp_ratios=2, heads=2, head_dim=4, center_grid=2, region_grid=1)
CONFIG = f"""
default_scope = 'mmengine'
custom_imports = dict(imports=['depth_task'])
model = dict(
    type='DepthEstimator',
    backbone=dict(type='ContextCluster', arch={ARCH}, out_indices=(0, 1)),
    channels=12,
    data_preprocessor=dict(type='ImgDataPreprocessor', mean=[127.5] * 3, std=[60.0] * 3))
loader = dict(batch_size=2, num_workers=0, collate_fn=dict(type='pseudo_collate'))
train_dataloader = dict(
    **loader, sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='Scenes', data_root='data/ade20k', pipeline=[dict(type='LoadScene')],
        data_prefix=dict(img_path='images/training', seg_map_path='annotations/training')))
val_dataloader = test_dataloader = dict(
    **loader, sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='Scenes', data_root='data/ade20k', pipeline=[dict(type='LoadScene')], test_mode=True,
        data_prefix=dict(img_path='images/validation', seg_map_path='annotations/validation')))
val_evaluator = test_evaluator = dict(type='RootMeanSquare')
train_cfg = dict(by_epoch=True, max_epochs=2)
val_cfg = test_cfg = dict()
optim_wrapper = dict(optimizer=dict(type='AdamW', lr=0.001))
default_hooks = dict(visualization=dict(type='DepthPictures'))
randomness = dict(seed=0)
"""


def run(cwd, tool, *arguments, expect=0):
    paths = os.pathsep.join(map(str, (ROOT, Path(__file__).parent)))
    variables = {'PYTHONPATH': paths, 'CUDA_VISIBLE_DEVICES': ''}
    done = run_tool(ROOT / 'tools' / tool, *arguments, cwd=cwd, env=variables)
    assert done.returncode == expect, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout + done.stderr


@pytest.fixture(scope='module')
def project(tmp_path_factory):
    """Digit scenes, a config, and a training of two epochs in work/."""
    folder = tmp_path_factory.mktemp('depth')
    run(folder, 'dataset_converters/make_digits_data.py', '--out', 'data', '--layout', 'ade20k', '--scenes', '10', '4')
    (folder / 'depth.py').write_text(CONFIG)
    run(folder, 'train.py', 'depth.py', '--work-dir', 'work')
    return folder


def test_it_trains_tests_and_shows(project):
    checkpoint = project / 'work' / 'epoch_2.pth'
    told = run(project, 'test.py', 'depth.py', checkpoint, '--out', 'found.pkl', '--show-dir', 'pictures')
    rmse = float(told.split('rmse: ')[1].split()[0])
    assert 0 < rmse < 1
    assert f'{checkpoint}: depth checkpoint of this project' in told
    found = pickle.loads((project / 'found.pkl').read_bytes())
    assert len(found) == 4
    squares = [np.square(sample['predicted'].numpy() - sample['depth'].numpy()).mean() for sample in found]
    assert np.mean(squares) ** 0.5 == pytest.approx(rmse, abs=1e-3)
    pictures = sorted((project / 'pictures').glob('*.png'))
    assert [path.stem for path in pictures] == sorted(Path(sample['img_path']).stem for sample in found)
    assert Image.open(pictures[0]).size == Image.open(project / found[0]['img_path']).size


def test_it_has_no_report(project):
    told = run(project, 'test.py', 'depth.py', project / 'work' / 'epoch_2.pth', '--report', 'report', expect=2)
    assert '--report: the scope mmengine has none; classification, detection, segmentation and point clouds' in told


def test_its_data_is_checked(project):
    assert 'No errors.' in run(project, 'dataset_converters/check_data.py', 'depth.py')
    lost = next((project / 'data' / 'ade20k' / 'annotations' / 'training').glob('*.png'))
    kept = lost.read_bytes()
    lost.unlink()
    try:
        told = run(project, 'train.py', 'depth.py', '--work-dir', 'other', expect=2)
    finally:
        lost.write_bytes(kept)
    assert f'{lost.stem}.jpg has no label map' in told and 'Traceback' not in told


def test_its_checkpoints_are_its_own_and_are_exported(project):
    checkpoint = project / 'work' / 'epoch_2.pth'
    told = run(project, 'deployment/export_onnx.py', 'depth.py', checkpoint, '--out', 'depth.onnx', '--size', '64')
    assert 'outputs: stage0, stage1' in told
    options = ['--cfg-options', 'model.channels=16', 'model.backbone.arch.dims=(8,16)']
    told = run(project, 'test.py', 'depth.py', checkpoint, *options, expect=2)
    assert 'does not fit the model' in told and 'Traceback' not in told
