"""The command line of the benchmark: it measures what is asked, and tells no speed of what computes something else."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import candidates, measuring
from benchmarks.cases import PEERS, ModelCase, OperatorCase
from coc_core.ops import cluster, dispatch

ROOT = Path(__file__).parents[3]

_spec = importlib.util.spec_from_file_location('benchmark', ROOT / 'tools' / 'analysis_tools' / 'benchmark.py')
tool = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(tool)


@pytest.fixture(autouse=True)
def short_samples(monkeypatch):
    monkeypatch.setattr(measuring, 'SAMPLE_SECONDS', 0.0)
    monkeypatch.setattr('benchmarks.machine.GEMM_SIDE', {'cpu': 64})
    monkeypatch.setattr('benchmarks.machine.COPY_BYTES', {'cpu': 2**16})


def run(*arguments):
    return tool.main([str(a) for a in arguments])


@pytest.fixture(scope='module')
def measured(tmp_path_factory):
    """A real run of the tool: what it printed, and its JSON."""
    out = tmp_path_factory.mktemp('benchmark') / 'result.json'
    command = [
        sys.executable,
        ROOT / 'tools' / 'analysis_tools' / 'benchmark.py',
        '--model',
        'coc_tiny',
        '--peers',
        'resnet18',
    ]
    options = ['--size', 32, 64, '--batch-size', 1, '--rounds', 2, '--threads', 1, '--out', out]
    environment = {**os.environ, 'CUDA_VISIBLE_DEVICES': ''}
    done = subprocess.run([str(c) for c in command + options], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    # What the profiler writes by itself is not shown.
    assert all(line.startswith('... ') for line in done.stderr.splitlines()), done.stderr
    return done.stdout, json.loads(out.read_text()), out


def test_every_candidate_has_a_row_for_each_mode(measured):
    _, results, _ = measured
    names = [(row['name'], row['mode']) for row in results['rows']]
    assert names == [(n, m) for m in ('eval', 'train') for n in ('coc_tiny', 'coc_tiny reference', 'resnet18')]
    for row in results['rows']:
        assert len(row['seconds']) == 2 and min(row['seconds']) > 0
        assert row['peak_memory_bytes'] > 0 and row['flops'] > 0 and row['parameters'] > 5e6
        assert (row['speed_ratio'] is None) == (row['memory_ratio'] is None) == (row['name'] != 'coc_tiny')


def test_machine_is_described_without_its_name(measured):
    stdout, results, out = measured
    machine = results['machine']
    assert machine['threads'] == 1 and machine['torch'] == torch.__version__ and machine['cpu'] and machine['date']
    assert machine['gpu'] is None and 'triton' in machine and machine['timm']
    assert results['bounds']['fp32']['gemm'] > 0 and results['bounds']['fp32']['copy'] > 0
    assert str(ROOT) not in out.read_text() and os.uname().nodename not in out.read_text()
    assert machine['cpu'] in stdout and f'torch {torch.__version__}' in stdout


def test_table_is_rendered_from_the_file(measured, capsys):
    assert run('--render', measured[2]) == 0
    markdown = capsys.readouterr().out
    assert '| resnet18 ' in markdown and ':-' in markdown
    assert '| coc_tiny reference ' in measured[0].replace('│', '|')


@pytest.mark.parametrize(
    ('arguments', 'cases'),
    [
        (
            ('--operator', '--shape', *'2642822', '--shape', *'1553511', '--rounds', '3'),
            [OperatorCase((2, 6, 4, 2, 8), 2, 2, rounds=3), OperatorCase((1, 5, 5, 3, 5), 1, 1, rounds=3)],
        ),
        (
            ('--model', 'coc_tiny', 'resnet18', 'coc_tiny', '--center-grid', '3', '--dense', '--mode', 'train'),
            [ModelCase(('coc_tiny-9',), (224, 224), 8, dense=True, peers=('resnet18',), modes=('train',))],
        ),
        (('--model', 'coc_small', '--peers'), [ModelCase(('coc_small',), (224, 224), 8, peers=PEERS)]),
        (
            ('--model', 'coc_small', '--mixer', 'mine:A', 'mine:B', 'mine:A'),
            [ModelCase(('coc_small',), (224, 224), 8, mixers=('mine:A', 'mine:B'))],
        ),
    ],
    ids=['operator', 'dense', 'peers', 'mixers'],
)
def test_cases_are_what_is_asked_for(arguments, cases):
    assert tool.cases_of(tool.parse_args(list(arguments)), 'cpu') == cases


def broken(*arguments, **options):
    return 1.001 * cluster(*arguments, impl='plain', **options)


@pytest.mark.parametrize('what', [('--model', 'coc_tiny'), ('--operator', '--shape', *'1664224')])
def test_no_speed_of_an_operator_that_is_not_equal(monkeypatch, capsys, what):
    monkeypatch.setitem(dispatch.TABLE, 'cluster', (dispatch.Row('cpu', broken), *dispatch.TABLE['cluster'][2:]))
    assert run(*what, '--impl', 'cpu', '--rounds', 1) == 2
    told = capsys.readouterr()
    assert told.out == ''
    error = told.err.splitlines()[-1]
    assert error.startswith('error: ') and "impl='cpu'" in error and 'is not equal to the reference' in error


@pytest.mark.parametrize(
    ('arguments', 'sentence'),
    [
        (('--model', 'coc_tinny'), "Unknown variant 'coc_tinny'. Did you mean"),
        (('--model', 'resnet81'), "timm has no model 'resnet81'. Did you mean"),
        (('--model', 'coc_small-5'), 'the number of centers, a square'),
        (('--model', 'coc_tiny', '--device', 'cuda:99'), 'finds no such GPU here'),
        (('--model', 'coc_tiny', '--device', 'tpu'), 'choose cpu, cuda or cuda:N'),
        (('--model', 'coc_tiny', '--impl', 'fast'), "impl='fast' is unknown"),
        (('--model', 'coc_tiny', '--out', 'nowhere/a.json'), 'name a .json file in a folder that exists'),
        (('--model', 'coc_tiny', '--size', 33, 32), 'sizes that divide by 32, which 33x32 does not'),
        (('--model', 'vit_tiny_patch16_224', '--size', 33, 32), 'does not take images of 33x32'),
        (('--operator', '--shape', *'1555223'), 'does not divide into 3x3 regions'),
        (('--render', 'nowhere.json'), 'nowhere.json holds no results of this tool'),
    ],
    ids=str,
)
def test_mistakes_are_one_sentence(monkeypatch, capsys, arguments, sentence):
    # It is another test that asks whether they are equal.
    monkeypatch.setattr(candidates, 'check_model', lambda *_, **__: None)
    monkeypatch.setattr(candidates, 'check_operator', lambda *_, **__: None)
    assert run(*arguments) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith('error: ') and sentence in error


@pytest.mark.parametrize(
    'arguments',
    [
        (),
        ('--model', 'coc_tiny', '--rounds', 0),
        ('--operator',),
        ('--suite', '--dense'),
        ('--model', 'resnet18', '--mixer', 'mine:A'),
        ('--operator', '--shape', *'1664224', '--mixer', 'mine:A'),
        ('--model', 'coc_tiny', '--suite'),
        ('--model', 'coc_tiny', '--mode', 'test'),
    ],
)
def test_usage_errors(arguments):
    with pytest.raises(SystemExit, match='2'):
        run(*arguments)
