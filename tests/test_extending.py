"""The examples of docs/extending.md, as they stand in the page, trained, tested, drawn and exported from outside."""

import math
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.registry import MODELS, init_default_scope
from mmpretrain.structures import DataSample
from PIL import Image
from processes import run_tool

import coc_core
from coc_core import checkpoints
from coc_core.mm.configs import load_config

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / 'docs' / 'extending.md').read_text()
FILES = dict(re.findall(r'<!-- file: (\w+\.py) -->\n```python\n(.*?)```', PAGE, re.DOTALL))
SHORT = ['--cfg-options', 'train_cfg.max_epochs=1', 'train_dataloader.num_workers=0', 'val_dataloader.num_workers=0']


@pytest.fixture
def folder(tmp_path):
    """The page's folder: the checkout, the examples' files beside it, and a few images in the place of the digits."""
    (tmp_path / 'context-cluster').symlink_to(ROOT)
    for name, text in FILES.items():
        # One block in each stage: each more takes a second to export.
        shallow = '' if name.endswith('_mixer.py') else "model['backbone']['depths'] = (1, 1, 1, 1)\n"
        (tmp_path / name).write_text(text + shallow)
    rng = np.random.default_rng(0)
    for split, count in (('train', 4), ('val', 1)):
        for label in range(10):
            place = tmp_path / 'data' / 'digits' / 'imagenet' / split / str(label)
            place.mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(place / f'{i}.png')
    return tmp_path


def run(folder, *command):
    variables = {'PYTHONPATH': '.', 'PYTHON': sys.executable}
    if command[0].suffix == '.py':
        done = run_tool(folder / command[0], *command[1:], cwd=folder, env=variables)
    else:
        words = [str(word) for word in command]
        done = subprocess.run(words, cwd=folder, env={**os.environ, **variables}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout + done.stderr


def test_first_steps_show_a_mixer_that_trains_and_exports():
    page = (ROOT / 'docs' / 'first-steps.md').read_text()
    block = next(b for b in re.findall(r'```python\n(.*?)```', page, re.DOTALL) if 'Mixer' in b)
    names = {}
    exec(f'import coc_core, torch\n{block}', names)
    model, images = names['model'].eval(), torch.randn(1, 3, 32, 32)
    model(images).sum().backward()
    torch.testing.assert_close(torch.export.export(model, (images,)).module()(images), model(images))


def test_page_shows_a_mixer_without_clusters():
    block = next(b for b in re.findall(r'```python\n(.*?)```', PAGE, re.DOTALL) if b.startswith('class AverageMixer'))
    names = {'torch': torch}
    exec(block, names)
    model = coc_core.create_model('coc_tiny', num_classes=3, mixer=names['AverageMixer'])
    model(torch.randn(2, 3, 64, 64)).sum().backward()


def test_page_shows_a_backbone_with_another_mlp():
    block = next(b for b in re.findall(r'```python\n(.*?)```', PAGE, re.DOTALL) if 'class GatedBackbone' in b)
    names = {}
    exec(block, names)
    try:
        model = MODELS.build(
            dict(type='GatedBackbone', arch='coc_tiny', depths=(1, 1, 1, 1), layer_scale_init=0.5)
        ).eval()
    finally:
        MODELS.module_dict.pop('GatedBackbone')
    images = torch.randn(1, 3, 64, 64)
    before = model(images)
    model.stages[0].blocks[0].mlp.fc2.bias.data += 1
    assert not torch.allclose(model(images)[0], before[0])
    found = checkpoints.load_content(
        coc_core.create_model('coc_tiny', depths=(1, 1, 1, 1), num_classes=0),
        {
            'state_dict': coc_core.create_model('coc_tiny', depths=(1, 1, 1, 1), num_classes=0).state_dict(),
            'meta': {'cfg': "model = dict(backbone=dict(arch='coc_tiny', type='GatedBackbone'))"},
        },
        'a.pth',
    )
    assert found.otherwise == ('by the backbone GatedBackbone where this model has ContextCluster',)


@pytest.mark.parametrize('name', ['distance', 'soft', 'position'])
def test_example(folder, name):
    assert len(FILES[f'{name}_mixer.py'].splitlines()) <= 30
    tools, config = Path('context-cluster/tools'), f'{name}.py'
    checkpoint = f'work_dirs/{name}/epoch_1.pth'
    # One example starts as the page does; a launcher costs seconds and is the same for all.
    train, test = ('dist_train.sh', 'dist_test.sh') if name == 'distance' else ('train.py', 'test.py')
    processes = [1] if name == 'distance' else []
    assert 'Saving checkpoint at 1 epochs' in run(folder, tools / train, config, *processes, *SHORT)
    weights = torch.load(folder / checkpoint, map_location='cpu', weights_only=False)['state_dict']
    assert ('backbone.stages.0.blocks.0.mixer.positions' in weights) == (name == 'position')
    assert 'accuracy/top1' in run(folder, tools / test, config, checkpoint, *processes)
    image = 'data/digits/imagenet/val/3/0.png'
    options = ('--config', config, '--checkpoint', checkpoint, '--out', 'pictures')
    run(folder, tools / 'analysis_tools' / 'visualize_clusters.py', image, *options)
    assert list((folder / 'pictures').glob('*.png'))
    told = run(folder, tools / 'deployment' / 'export_onnx.py', config, checkpoint, '--out', f'{name}.onnx')
    assert 'agrees with PyTorch' in told and (folder / f'{name}.onnx').is_file()


@pytest.mark.parametrize('checkpointing', [False, True])
def test_loss_of_the_clusters_reaches_what_makes_them(folder, monkeypatch, checkpointing):
    monkeypatch.syspath_prepend(folder)
    monkeypatch.chdir(folder)
    cfg = load_config('balanced.py')
    init_default_scope(cfg.default_scope)
    model = MODELS.build(cfg.model | dict(backbone=cfg.model.backbone | dict(grad_checkpointing=checkpointing))).train()
    samples = [DataSample().set_gt_label(label) for label in range(2)]
    losses = model.loss(torch.randn(2, 3, 64, 64), samples)
    assert set(losses) == {'loss', 'loss_balance'} and 0 < losses['loss_balance'] < 0.1 * math.log(4)
    losses['loss_balance'].backward()
    mixers = [layer for layer in model.modules() if hasattr(layer, 'imbalance')]
    assert len(mixers) == 4 and all(mixer.points_values.weight.grad.any() for mixer in mixers)


def test_a_mistake_in_a_mixers_arguments_is_one_sentence(folder):
    (folder / 'distance.py').write_text(FILES['distance.py'].replace('temperature=2.0', 'temprature=2.0'))
    done = run_tool(ROOT / 'tools' / 'train.py', 'distance.py', cwd=folder, env={'PYTHONPATH': '.'})
    assert done.returncode == 2
    last = done.stderr.splitlines()[-1]
    assert "DistanceMixer takes no argument 'temprature'. Did you mean 'temperature'?" in last
