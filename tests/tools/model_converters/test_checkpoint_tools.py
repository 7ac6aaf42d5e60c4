"""Checkpoints through the tools: convert, publish, and files that must not run, by every way into a training."""

import hashlib
import json
import runpy
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from processes import run_tool
from torch.testing import assert_close

from coc_core import CoCConfig, ContextCluster
from coc_core.checkpoints import read, to_official

ROOT = Path(__file__).parents[3]
ARCH = dict(depths=(1, 1), dims=(8, 12), mlp_ratios=2, heads=2, head_dim=4, center_grid=2, region_grid=1)
CONFIG = f"""
default_scope = 'mmpretrain'
custom_imports = dict(imports=['mmpretrain_plugin'])
pipeline = [dict(type='LoadImageFromFile'), dict(type='PackInputs')]
model = dict(
    type='ImageClassifier',
    backbone=dict(type='ContextCluster', arch={ARCH}, out_indices=(1,), output_norm='classification'),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=2, in_channels=12),
    data_preprocessor=dict(mean=[127.5] * 3, std=[40.0] * 3, to_rgb=True))
train_dataloader = dict(
    batch_size=4, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(type='CustomDataset', data_root='images', pipeline=pipeline))
val_dataloader = test_dataloader = train_dataloader
val_evaluator = test_evaluator = dict(type='Accuracy', topk=1)
train_cfg = dict(by_epoch=True, max_epochs=1)
val_cfg = test_cfg = dict()
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.01))
randomness = dict(seed=0)
"""


def run(cwd, tool, *arguments, expect=0):
    done = run_tool(ROOT / 'tools' / tool, *arguments, cwd=cwd, env={'CUDA_VISIBLE_DEVICES': ''})
    assert done.returncode == expect, done.stdout[-2000:] + done.stderr[-2000:]
    assert 'Traceback' not in done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope='module')
def project(tmp_path_factory):
    """A folder with a config, two classes of images and a training of one epoch in work/."""
    folder = tmp_path_factory.mktemp('project')
    random = np.random.default_rng(0)
    for label in range(2):
        (folder / 'images' / f'class{label}').mkdir(parents=True)
        for index in range(4):
            pixels = random.integers(90 * label, 90 * label + 160, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / 'images' / f'class{label}' / f'{index}.png')
    (folder / 'config.py').write_text(CONFIG)
    run(folder, 'train.py', 'config.py', '--work-dir', 'work')
    return folder


def accuracy(output):
    return output.split('accuracy/top1:')[1].split()[0]


def published_file(path, **options):
    """What the published code would have saved of a model like the project's."""
    torch.manual_seed(1)
    state = ContextCluster(CoCConfig(**ARCH), num_classes=2).state_dict()
    torch.save({'state_dict': to_official(state, **options), 'optimizer': {}}, path)
    return state


def test_a_published_checkpoint_is_tested_and_converted(project, tmp_path):
    """Loaded as it is or after conversion, by its names or mmpretrain's: the same accuracy."""
    published_file(tmp_path / 'published.pth')
    direct = run(project, 'test.py', 'config.py', tmp_path / 'published.pth')
    assert 'published classification checkpoint' in direct
    out = run(
        project,
        'model_converters/convert_checkpoint.py',
        tmp_path / 'published.pth',
        tmp_path / 'ours.pth',
        '--to',
        'mmpretrain',
    )
    assert 'ours.pth: mmpretrain' in out
    assert accuracy(run(project, 'test.py', 'config.py', tmp_path / 'ours.pth')) == accuracy(direct)
    out = run(project, 'model_converters/convert_checkpoint.py', tmp_path / 'ours.pth', tmp_path / 'ours.pth', expect=2)
    assert 'exists already: remove it' in out


def test_published_weights_that_need_another_denominator_are_not_tested(project, tmp_path):
    published_file(tmp_path / 'first.pth', first_generation=True)
    out = run(project, 'test.py', 'config.py', tmp_path / 'first.pth', expect=2)
    assert "build it with denominator='count'" in out
    run(project, 'test.py', 'config.py', tmp_path / 'first.pth', '--cfg-options', 'model.backbone.denominator=count')


def test_training_starts_from_a_published_checkpoint_of_other_classes(project, tmp_path):
    """`load_from` takes over what fits and names what does not."""
    published_file(tmp_path / 'published.pth')
    images = shutil.copytree(project / 'images', tmp_path / 'images')
    shutil.copytree(images / 'class1', images / 'class2')
    data = (f'{phase}_dataloader.dataset.data_root={images}' for phase in ('train', 'val'))
    options = (f'load_from={tmp_path}/published.pth', 'model.head.num_classes=3', *data)
    out = run(project, 'train.py', 'config.py', '--work-dir', tmp_path / 'work', '--cfg-options', *options)
    assert 'does not fit: 2 of another shape (head.fc.weight [2, 12] where the model has [3, 12]' in out


def test_publishing_keeps_weights_and_what_one_must_know(project, tmp_path):
    out = run(project, 'model_converters/publish_model.py', 'work/epoch_1.pth', tmp_path / 'tiny')
    (path,) = tmp_path.glob('tiny-*.pth')
    assert path.stem.split('-')[1] == hashlib.sha256(path.read_bytes()).hexdigest()[:8]
    published, trained = read(path), read(project / 'work' / 'epoch_1.pth')
    assert set(published) == {'meta', 'state_dict'} and 'optimizer' in trained
    assert all(torch.equal(v, trained['state_dict'][k]) for k, v in published['state_dict'].items())
    meta = published['meta']
    assert meta['denominator'] == 'similarity' and meta['dataset'] == 'CustomDataset in images' and meta['epoch'] == 1
    assert meta['architecture']['dims'] == (8, 12) and "type='ContextCluster'" in meta['cfg']
    metric = accuracy(run(project, 'test.py', 'config.py', path))
    assert meta['metric']['accuracy/top1'] == pytest.approx(float(metric), abs=1e-3)
    assert f'{path}: ' in out


@pytest.mark.parametrize(
    ('meta', 'expected'),
    [
        ({'epoch': 1, 'iter': 2}, 1.0),
        ({'epoch': 2, 'iter': 4}, 2.0),
        ({'epoch': 4, 'iter': 8}, 4.0),
        ({'epoch': 3}, 3.0),
    ],
)
def test_the_metric_is_of_the_checkpoints_epoch_where_an_iteration_has_its_number(tmp_path, meta, expected):
    lines = []
    for epoch in range(1, 6):
        lines += [{'lr': 0.1, 'iter': 2 * epoch, 'step': 2 * epoch}, {'top1': float(epoch), 'step': epoch}]
    log = tmp_path / '20260101_000000' / 'vis_data' / 'scalars.json'
    log.parent.mkdir(parents=True)
    log.write_text('\n'.join(map(json.dumps, lines)) + '\n{"lr": 0.1, "it')
    publish = runpy.run_path(str(ROOT / 'tools' / 'model_converters' / 'publish_model.py'))
    assert publish['logged_metric'](tmp_path / 'epoch.pth', meta) == {'top1': expected}


def test_publishing_as_safetensors(project, tmp_path):
    run(
        project,
        'model_converters/publish_model.py',
        'work/epoch_1.pth',
        tmp_path / 'tiny',
        '--safetensors',
        '--metric',
        'top1=50',
    )
    (path,) = tmp_path.glob('tiny-*.safetensors')
    assert read(path)['meta']['metric'] == '{"top1": 50.0}'
    assert accuracy(run(project, 'test.py', 'config.py', path))


def test_half_the_bytes_give_nearly_the_same(project, tmp_path):
    run(project, 'model_converters/publish_model.py', 'work/epoch_1.pth', tmp_path / 'tiny', '--safetensors', '--half')
    (path,) = tmp_path.glob('tiny-*.safetensors')
    whole = torch.load(project / 'work' / 'epoch_1.pth', weights_only=False)['state_dict']
    half = read(path)['state_dict']
    assert half.keys() == whole.keys()
    for name, value in half.items():
        assert value.dtype == torch.float16
        assert_close(value.float(), whole[name], rtol=2**-11, atol=2**-25)
    assert accuracy(run(project, 'test.py', 'config.py', path))


def test_publishing_refuses_what_does_not_fit(project, tmp_path):
    torch.save({'state_dict': {'a': torch.zeros(1)}}, tmp_path / 'other.pth')
    assert 'has 0 configs (*.py) beside it' in run(
        project, 'model_converters/publish_model.py', tmp_path / 'other.pth', 'x', expect=2
    )
    arguments = (tmp_path / 'other.pth', tmp_path / 'x', '--config', 'config.py')
    assert 'holds no Context Cluster weights' in run(project, 'model_converters/publish_model.py', *arguments, expect=2)
    arguments = ('work/epoch_1.pth', tmp_path / 'x', '--config', 'config.py', '--cfg-options')
    told = run(project, 'model_converters/publish_model.py', *arguments, 'model.backbone.center_grid=1', expect=2)
    assert 'was trained with center_grid=(2, 2) where this model has (1, 1): name the config of its training' in told
    assert [file.name for file in tmp_path.iterdir()] == ['other.pth']


@pytest.mark.parametrize('way', ['test', 'resume', 'load_from', 'init_cfg', 'convert', 'publish'])
def test_a_malicious_file_does_not_run_by_any_way(project, tmp_path, malicious, way):
    content = read(project / 'work' / 'epoch_1.pth')
    evil, target = tmp_path / 'evil.pth', tmp_path / 'was here'
    torch.save({**content, 'extra': malicious(target)}, evil)
    train = ('train.py', 'config.py', '--work-dir', tmp_path / 'work')
    command = {
        'test': ('test.py', 'config.py', evil),
        'resume': (*train, '--resume', evil),
        'load_from': (*train, '--cfg-options', f'load_from={evil}'),
        'init_cfg': (
            *train, '--cfg-options', 'model.backbone.init_cfg.type=Pretrained',
            f'model.backbone.init_cfg.checkpoint={evil}',
        ),
        'convert': ('model_converters/convert_checkpoint.py', evil, tmp_path / 'out.pth'),
        'publish': ('model_converters/publish_model.py', evil, tmp_path / 'out'),
    }[way]  # fmt: skip
    out = run(project, *command, expect=2)
    assert f'{evil} holds more than weights and was not read' in out
    assert not target.exists()
    torch.load(evil, weights_only=False)
    assert target.exists(), 'the file is not malicious: the test proves nothing'


@pytest.mark.parametrize(('way', 'key'), [('resume', 'config'), ('resume', 'cfg'), ('publish', 'cfg')])
def test_a_config_in_a_file_is_not_run(project, tmp_path, way, key):
    """Mmengine runs a checkpoint's config as a program: none is given to it."""
    content = read(project / 'work' / 'epoch_1.pth')
    evil, target = tmp_path / 'evil.pth', tmp_path / 'was here'
    content['meta'][key] = f'import os\nos.mkdir({str(target)!r})\n'
    torch.save(content, evil)
    if way == 'publish':
        out = run(project, 'model_converters/publish_model.py', evil, tmp_path / 'out', expect=2)
        assert 'evil.pth has 0 configs (*.py) beside it: name one with --config' in out
    else:
        run(project, 'train.py', 'config.py', '--work-dir', tmp_path / 'work', '--resume', evil)
    assert not target.exists()
