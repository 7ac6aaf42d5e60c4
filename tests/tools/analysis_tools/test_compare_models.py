"""tools/analysis_tools/compare_models.py on the Fashion-MNIST configs and a few pictures in that data set's files."""

import hashlib
import importlib.util
import json
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmpretrain.registry import DATASETS
from processes import run_tool

from coc_core.errors import UserError
from coc_core.mm.configs import load_config

ROOT = Path(__file__).parents[3]
TOOL = ROOT / 'tools' / 'analysis_tools' / 'compare_models.py'
NAMES = ['coc-tiny_1xb32-500_fashion-mnist', 'resnet18_1xb32-500_fashion-mnist']
CONFIGS = [ROOT / 'configs' / 'classification' / f'{name}.py' for name in NAMES]


def run(*command, expect=0):
    done = run_tool(TOOL, *command)
    assert done.returncode == expect, done.stdout + done.stderr
    return done.stderr.strip() if expect else done.stdout.strip()


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp('fashion-mnist')
    random = np.random.default_rng(0)
    for split, number in (('train', 64), ('t10k', 20)):
        pictures = random.integers(0, 256, (number, 28, 28), dtype=np.uint8)
        header = struct.pack('>4i', 0x803, number, 28, 28)
        (folder / f'{split}-images-idx3-ubyte').write_bytes(header + pictures.tobytes())
        labels = struct.pack('>2i', 0x801, number) + bytes(i % 10 for i in range(number))
        (folder / f'{split}-labels-idx1-ubyte').write_bytes(labels)
    return folder


def test_what_is_tested_was_not_trained_on(data):
    cfg = load_config(str(CONFIGS[0]))
    init_default_scope('mmpretrain')
    datasets = (cfg[f'{phase}_dataloader'].dataset for phase in ('train', 'val', 'test'))
    lengths = [len(DATASETS.build({**dataset, 'data_root': str(data), 'pipeline': []})) for dataset in datasets]
    assert lengths == [64, 20, 20]


def finish(work_dir):
    """Write what a training of one seed leaves when it is complete."""
    log = work_dir / '20260101_000000' / 'vis_data' / 'scalars.json'
    log.parent.mkdir(parents=True)
    log.write_text('{"lr": 0.1, "loss": 2.0, "iter": 2, "step": 2}\n{"accuracy/top1": 55.0, "step": 2}\n')
    (work_dir / 'iter_2.pth').write_bytes(b'weights')
    (work_dir / 'last_checkpoint').write_text(str(work_dir / 'iter_2.pth'))
    (work_dir / 'metrics.json').write_text('{"accuracy/top1": 55.0}')


def test_a_record_says_what_was_trained_and_what_came_out(data, tmp_path):
    work_dirs = [tmp_path / 'work' / name / 'seed-3' for name in NAMES]
    # One is complete already: it is not trained again, which would take the place of these weights.
    finish(work_dirs[0])
    out = tmp_path / 'record'
    roots = [f'{split}_dataloader.dataset.data_root={data}' for split in ('train', 'val', 'test')]
    options = ['--cfg-options', 'train_cfg.max_iters=2', 'train_cfg.val_interval=2', *roots]
    printed = run(*CONFIGS, '--seeds', 3, '--work-dir', tmp_path / 'work', '--out', out, *options)
    models = json.loads((out / 'results.json').read_text())['models']
    assert [model['name'] for model in models] == NAMES
    for model, work_dir in zip(models, work_dirs, strict=True):
        checkpoint = work_dir / 'iter_2.pth'
        assert model['checkpoints_sha256'] == [hashlib.sha256(checkpoint.read_bytes()).hexdigest()]
        measured = json.loads((work_dir / 'metrics.json').read_text())['accuracy/top1']
        assert model['metrics']['accuracy/top1'] == {'values': [measured], 'mean': measured, 'std': 0.0}
        assert f'{model["parameters"]:,} | {measured:.2f} ± 0.00 |' in printed
        last = json.loads((out / 'logs' / f'{model["name"]}_seed-3.json').read_text().splitlines()[-1])
        assert last['step'] == 2 and 'accuracy/top1' in last
    assert models[0]['metrics']['accuracy/top1']['mean'] == 55.0
    trained = torch.load(work_dirs[1] / 'iter_2.pth', weights_only=False)['state_dict']
    buffers = ('running_mean', 'running_var', 'num_batches_tracked')
    parameters = [value.numel() for name, value in trained.items() if not name.endswith(buffers)]
    assert models[1]['parameters'] == sum(parameters)
    assert (out / 'curves.png').stat().st_size > 10_000
    assert [model['otherwise'] for model in models] == [[], []]


def test_two_configs_of_one_name_are_refused(tmp_path):
    copy = tmp_path / CONFIGS[0].name
    copy.write_text(CONFIGS[0].read_text())
    assert f'Two configs are named {NAMES[0]}' in run(CONFIGS[0], copy, '--out', tmp_path / 'out', expect=2)
    assert not (tmp_path / 'out').exists()


def test_a_training_that_fails_ends_the_comparison(tmp_path):
    missing = [f'train_dataloader.dataset.data_root={tmp_path / "nothing"}', 'train_dataloader.dataset.download=False']
    command = (CONFIGS[1], '--seeds', 0, '--work-dir', tmp_path, '--out', tmp_path / 'out', '--cfg-options', *missing)
    assert 'run_seeds.py failed' in run(*command, expect=2)
    assert not (tmp_path / 'out').exists()


@pytest.fixture
def tool():
    """The tool as a module."""
    spec = importlib.util.spec_from_file_location('compare_models_tool', TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_models_that_are_tested_with_other_samples_are_not_compared(tool):
    models = [dict(name=name, test_data=data) for name, data in (('old', None), ('a', ['x']), ('b', ['x']))]
    tool.check_same_test(models)
    with pytest.raises(UserError, match='c and a are tested with other samples'):
        tool.check_same_test([*models, dict(name='c', test_data=['y'])])


def test_a_metric_that_a_model_lacks_or_that_is_no_number_is_none(tool):
    result, nothing = dict(mean=1.0, std=0.5), dict(mean=None, std=None)
    models = [
        dict(config='a', parameters=1, metrics=dict(top1=result)),
        dict(config='b', parameters=2, metrics=dict(top1=nothing, top5=result)),
    ]
    assert tool.table(models).splitlines()[2:] == [
        '| `a` | 1 | 1.00 ± 0.50 | not measured |',
        '| `b` | 2 | no number | 1.00 ± 0.50 |',
    ]


def test_a_record_that_cannot_be_written_is_told_before_anything_is_trained(tmp_path):
    (tmp_path / 'file').touch()
    for name, sentence in (('file', 'is a file: name a folder.'), ('file/a', 'cannot be written')):
        command = (CONFIGS[1], '--seeds', 0, '--work-dir', tmp_path / 'work', '--out', tmp_path / name)
        assert sentence in run(*command, expect=2)
    assert not (tmp_path / 'work').exists()


def test_what_configs_have_otherwise_is_told(tool):
    base = dict(
        model=dict(type='A', pretrained=True, width=3, data_preprocessor=dict(mean=[0.0])),
        train_cfg=dict(max_epochs=3),
        custom_hooks=[dict(type='EMAHook')],
        arch='coc_tiny',
        visualizer=dict(type='Visualizer'),
    )
    other = dict(model=dict(type='B', depth=18, data_preprocessor=dict(mean=[1.0])), train_cfg=dict(max_epochs=4))
    first, second = (tool.compared_settings(Config(config)) for config in (base, other))
    assert tool.differences(first, first, 'a') == []
    assert sorted(tool.differences(second, first, 'a')) == [
        "custom_hooks.0.type is not set, 'EMAHook' in a",
        'model.data_preprocessor.mean is [1.0], [0.0] in a',
        'model.pretrained is not set, True in a',
        'train_cfg.max_epochs is 4, 3 in a',
    ]


def test_models_that_were_trained_on_other_samples_are_told(tool):
    a, b, unknown = (dict(name=name, train_data=data) for name, data in (('a', ['x']), ('b', ['y']), ('c', None)))
    assert tool.other_training_data(b, a) == ['other training samples than a']
    assert tool.other_training_data(a, a) == tool.other_training_data(unknown, a) == []


def test_data_that_nobody_knows_is_told(tool, capsys):
    tool.check_same_test([dict(name='a', test_data=['x']), dict(name='old', test_data=None)])
    assert 'note: old is tested with samples that nobody knows' in capsys.readouterr().err


def test_the_stock_configs_differ_in_the_model_alone(tool):
    first, second = (tool.compared_settings(load_config(str(config))) for config in CONFIGS)
    assert tool.differences(second, first, 'coc') == []
