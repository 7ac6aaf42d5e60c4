"""The benchmark measures what it says, tells everything it promises, and no speed of what computes something else."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import candidates, equality, measuring, report
from benchmarks.cases import GOALS, OperatorCase, split_name, suite
from benchmarks.counting import count_flops, plain_copy
from coc_core import create_model
from coc_core.ops import cluster, dispatch, implementations
from coc_core.ops.cpu.slabs import SlabClustering
from coc_core.reference import classify_reference

ROOT = Path(__file__).parents[2]
CPU = torch.device('cpu')

_spec = importlib.util.spec_from_file_location('benchmark', ROOT / 'tools' / 'benchmark.py')
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
    command = [sys.executable, ROOT / 'tools' / 'benchmark.py', '--model', 'coc_tiny', '--peers', 'resnet18']
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
    assert names == [(n, m) for m in ('eval', 'train') for n in ('coc_tiny', 'coc_tiny literal', 'resnet18')]
    for row in results['rows']:
        assert len(row['seconds']) == 2 and min(row['seconds']) > 0
        took = row['seconds_per_batch']
        assert took['min'] <= took['median'] <= took['max'] and took['min'] == min(row['seconds'])
        assert row['images_per_second'] == pytest.approx(1 / took['median'])
        assert row['peak_memory_bytes'] > 0 and row['flops'] > 0 and row['parameters'] > 5e6
        assert row['bound_reached'] == pytest.approx(row['bound_seconds'] / took['median'])
        assert (row['speed_ratio'] is None) == (row['memory_ratio'] is None) == (row['name'] != 'coc_tiny')


def test_ratio_is_taken_round_by_round(measured):
    rows = {(row['name'], row['mode']): row for row in measured[1]['rows']}
    pairs = zip(rows['coc_tiny literal', 'train']['seconds'], rows['coc_tiny', 'train']['seconds'], strict=True)
    ratios = [literal / own for literal, own in pairs]
    assert rows['coc_tiny', 'train']['speed_ratio']['max'] == pytest.approx(max(ratios))


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
    assert '| coc_tiny literal ' in measured[0].replace('│', '|')


@pytest.mark.parametrize(('precision', 'element_size'), [('fp32', 4), ('bf16', 2)])
def test_operator_rows(precision, element_size, tmp_path, capsys):
    out = tmp_path / 'a.json'
    shape = (2, 6, 4, 2, 8, 2, 2)
    options = ('--impl', 'auto', 'plain', '--rounds', 1, '--precision', precision)
    assert run('--operator', '--shape', *shape, *options, '--out', out) == 0
    rows = json.loads(out.read_text())['rows']
    assert [row['name'] for row in rows] == ['auto', 'plain', 'literal'] * 2
    values = 2 * 6 * 4 * 2 * 8 * element_size
    assert [rows[0]['bytes'], rows[3]['bytes']] == [3 * values, 8 * values]
    assert 'forward and backward' in capsys.readouterr().out


def test_half_precision_under_autocast(tmp_path):
    options = ('--size', 32, 32, '--batch-size', 1, '--rounds', 1, '--precision', 'bf16', '--mode', 'train')
    assert run('--model', 'coc_tiny-1', *options, '--out', tmp_path / 'a.json') == 0


def broken(*arguments, **options):
    return 1.001 * cluster(*arguments, impl='plain', **options)


@pytest.mark.parametrize('what', [('--model', 'coc_tiny'), ('--operator', '--shape', *'1664224')])
def test_no_speed_of_an_operator_that_is_not_equal(monkeypatch, capsys, what):
    monkeypatch.setitem(dispatch.TABLE, 'cluster', (dispatch.Row('cpu', broken), *dispatch.TABLE['cluster'][2:]))
    assert run(*what, '--impl', 'cpu', '--rounds', 1) == 2
    told = capsys.readouterr()
    assert told.out == ''
    error = told.err.splitlines()[-1]
    assert error.startswith('error: ') and "impl='cpu'" in error and 'is not equal to the literal' in error


def test_no_speed_of_a_model_whose_gradient_is_not_equal(monkeypatch, capsys):
    backward = SlabClustering.backward

    def without_the_scalars(*arguments, **options):
        return 0 * backward(*arguments, **options)

    monkeypatch.setattr(SlabClustering, 'backward', without_the_scalars)
    # It would see it first.
    monkeypatch.setattr(candidates, 'check_operator', lambda *_, **__: None)
    assert run('--model', 'coc_tiny', '--size', 32, 32, '--batch-size', 1, '--rounds', 1) == 2
    assert "coc_tiny with impl='auto' is not equal to the literal model" in capsys.readouterr().err


@pytest.mark.parametrize('impl', implementations())
def test_every_implementation_is_equal(impl):
    if impl == 'triton':
        pytest.skip('needs a GPU')
    equality.check_operator(impl, CPU, 'fp16', heads=3, dim=5, center_grid=3, region_grid=2)


def test_flops_are_those_of_the_layers():
    model = create_model('coc_tiny')
    images = torch.empty(1, 3, 224, 224, device='meta')
    by_hand, config = 5 * 16 * 32 * 56**2 + 320 * 1000, model.config
    for i in range(4):
        points = (56 >> i) ** 2
        dim, width, centers = config.dims[i], config.heads[i] * config.head_dim[i], config.center_grid[i] ** 2
        # Projections of points and values, and back; similarities and both sums; the two layers of the MLP.
        block = 3 * dim * width + 3 * width * centers + 2 * dim * int(dim * config.mlp_ratios[i])
        by_hand += points * (config.depths[i] * block + (9 * config.dims[i - 1] * dim if i else 0))
    evaluation = count_flops(plain_copy(model), [images], 'eval')
    assert evaluation == pytest.approx(2 * by_hand, rel=0.02)
    assert evaluation == pytest.approx(2.2e9, rel=0.02)
    assert count_flops(plain_copy(model), [images], 'train') == 3 * evaluation


def test_flops_of_a_convolution_in_groups():
    depthwise = torch.nn.Conv2d(8, 8, 3, padding=1, groups=8, device='meta')
    images = torch.empty(1, 8, 10, 10, device='meta')
    assert count_flops(depthwise, [images], 'train') == 3 * 2 * 9 * 8 * 100


def test_plain_copy_computes_the_same():
    model = create_model('coc_tiny').eval()
    images = torch.randn(1, 3, 32, 64)
    # The copy has no numbers: give it the model's.
    plain = plain_copy(model).to_empty(device='cpu')
    for mine, theirs in zip(plain.parameters(), model.parameters(), strict=True):
        mine.data = theirs.data
    with torch.no_grad():
        assert equality.relative_difference(plain(images), classify_reference(model, images)) < 1e-5


def test_peak_memory_of_known_allocations():
    def call():
        first = torch.empty(1000, 250)
        second = torch.empty(500, 250)
        del first
        return second, torch.empty(100, 250)

    assert measuring.peak_memory(call, CPU) == 1500 * 250 * 4


def test_ratios_are_paired():
    assert measuring.paired_ratios([2.0, 9.0, 4.0], [1.0, 3.0, 4.0]) == {'median': 2.0, 'min': 1.0, 'max': 3.0}


def test_goals_stand_beside_what_was_reached():
    row = dict(kind='model', name='coc_tiny', size=[224, 224], mode='eval', precision='fp32')
    row |= dict(speed_ratio={'median': 2.5}, memory_ratio=0.9)
    goals = report.goal_rows({'machine': {'device': 'cpu'}, 'rows': [row]})
    assert len(goals) == len(GOALS)
    assert [g['met'] for g in goals if g['reached'] is not None] == [True]
    assert next(g['reached'] for g in goals) == 2.5


@pytest.mark.parametrize('device', ['cpu', 'cuda'])
def test_suite_has_every_model_of_the_goals(device):
    measured = {(model, case.size) for case in suite(device) if hasattr(case, 'models') for model in case.models}
    assert {(goal.model, goal.size) for goal in GOALS} <= measured
    fits = [case.fits_on_chip(2) for case in suite(device) if isinstance(case, OperatorCase)]
    assert True in fits and False in fits


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
        ('--model', 'coc_tiny', '--suite'),
        ('--model', 'coc_tiny', '--mode', 'test'),
    ],
)
def test_usage_errors(arguments):
    with pytest.raises(SystemExit, match='2'):
        run(*arguments)


def test_names_of_models():
    assert split_name('coc_small-49') == ('coc_small', 7) and split_name('coc_tiny') == ('coc_tiny', None)
