"""tools/analysis_tools/plot_logs.py on logs as mmengine writes them, whole and torn."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest
from PIL import Image
from processes import run_tool

TOOL = Path(__file__).parents[3] / 'tools' / 'analysis_tools' / 'plot_logs.py'


@pytest.fixture(scope='module')
def plot_logs():
    spec = importlib.util.spec_from_file_location('plot_logs', TOOL)
    module = importlib.util.module_from_spec(spec)
    sys.modules['plot_logs'] = module
    spec.loader.exec_module(module)
    return module


def write(folder, time, lines, tail=''):
    path = folder / time / 'vis_data' / 'scalars.json'
    path.parent.mkdir(parents=True)
    path.write_text('\n'.join(json.dumps(line) for line in lines) + '\n' + tail)


def train(iteration, loss):
    return {'lr': 0.1 / iteration, 'loss': loss, 'time': 0.3, 'epoch': 1, 'iter': iteration, 'step': iteration}


def run(*command, expect=0):
    done = run_tool(TOOL, *command)
    assert done.returncode == expect, done.stdout + done.stderr
    return done.stderr.strip() if expect else done.stdout.strip()


@pytest.fixture
def work_dirs(tmp_path):
    """One run was killed in the middle of a line after iteration 30 and went on from 20; the other is of a detector."""
    lines = [train(10, 3.0), train(20, 2.0), {'top1': 50.0, 'step': 1}, train(30, 9.0)]
    write(tmp_path / 'one', '20260101_000000', lines, tail='{"lr": 0.1, "lo')
    write(tmp_path / 'one', '20260101_010000', [train(30, 1.5), train(40, 1.0), {'top1': 75.0, 'step': 2}])
    write(
        tmp_path / 'two',
        '20260101_000000',
        [train(10, 1.0), {'coco/bbox_mAP': 0.3, 'coco/bbox_mAP_50': 0.5, 'step': 1}],
    )
    return tmp_path


def test_a_run_that_went_on_is_one_curve(plot_logs, work_dirs):
    found = plot_logs.read_run(work_dirs / 'one')
    assert found.training['loss'] == {10: 3.0, 20: 2.0, 30: 1.5, 40: 1.0}
    # A validation stands at the iteration after which it was made, not at the number of its epoch.
    assert found.validation == {'top1': {20: 50.0, 40: 75.0}}


def test_parts_whose_clocks_disagree_follow_their_iterations(plot_logs, tmp_path, capsys):
    """The second part ran on a machine an hour behind, and the third behind the second."""
    parts = {'04': (10, 110, 1.0), '03': (60, 160, 2.0), '02': (150, 200, 3.0)}
    for hour, (first, end, loss) in parts.items():
        write(tmp_path / 'late', f'20260101_{hour}0000', [train(at, loss) for at in range(first, end, 10)])
    found = plot_logs.read_run(tmp_path / 'late').training['loss']
    assert found == {at: 1.0 if at < 60 else 2.0 if at < 150 else 3.0 for at in range(10, 200, 10)}
    assert f'{tmp_path / "late"}: the parts of this training are put in the order of' in capsys.readouterr().err
    # What began anew in the same folder took the place of what was there, however far that went.
    write(tmp_path / 'anew', '20260101_000000', [train(at, 1.0) for at in range(10, 100, 10)])
    write(tmp_path / 'anew', '20260101_010000', [train(at, 1.0) for at in range(70, 150, 10)])
    write(tmp_path / 'anew', '20260101_020000', [train(at, 2.0) for at in range(10, 60, 10)])
    assert plot_logs.read_run(tmp_path / 'anew').training['loss'] == dict.fromkeys(range(10, 60, 10), 2.0)
    assert not capsys.readouterr().err


def test_what_has_no_place_in_a_picture_is_told(plot_logs, tmp_path, capsys):
    for seed in range(2):
        lines = [train(10, 1.0), train(20, float('nan')), {'top1': 5.0, 'step': 1}, *[{'top5': 9.0, 'step': 1}] * seed]
        write(tmp_path / 'seeds' / f'seed-{seed}', '20260101_000000', lines, tail='7\n\0\0\n{"lr": 0.1, "lo')
    (tmp_path / 'seeds' / 'seed-notes.txt').touch()
    write(tmp_path / '_a$b$\\c', '20260101_000000', [train(10, 1.0)])
    runs = [plot_logs.read_run(tmp_path / name) for name in ('seeds', '_a$b$\\c')]
    assert plot_logs.metrics_of(runs, ['top1']) == ['top1']
    plot_logs.save(plot_logs.draw(runs, ['top1']), tmp_path / 'curves.png')
    told = capsys.readouterr().err.splitlines()
    assert told == [
        *(
            f'{tmp_path}/seeds/seed-{seed}: loss is no finite number at 1 of 2 places, first at iteration 20: its '
            'curve has a gap there.'
            for seed in range(2)
        ),
        'seeds: top5 is left out, as seed-0 has none.',
        '_a$b$\\c has no top1: it has no curve there.',
    ]


def test_the_picture_has_loss_metrics_and_learning_rate_of_every_run(plot_logs, work_dirs):
    runs = [plot_logs.read_run(work_dirs / name) for name in ('one', 'two')]
    assert plot_logs.metrics_of(runs, None) == ['top1', 'coco/bbox_mAP']
    figure = plot_logs.draw(runs, ['top1'])
    assert [axes.get_title() for axes in figure.axes] == ['training loss', 'top1', 'learning rate']
    assert [line.get_xydata().tolist() for line in figure.axes[0].lines] == [
        [[10, 3.0], [20, 2.0], [30, 1.5], [40, 1.0]], [[10, 1.0]],
    ]  # fmt: skip
    out = work_dirs / 'new' / 'curves.png'
    assert run(work_dirs / 'one', work_dirs / 'two', '--out', out) == str(out)
    assert min(Image.open(out).size) > 300
    assert [path.name for path in out.parent.iterdir()] == ['curves.png']


def test_seeds_are_one_curve_in_a_band(plot_logs, tmp_path):
    for seed, (losses, top1) in enumerate([((3.0, 2.0, 1.0), 50.0), ((2.0, 1.0), 70.0)]):
        lines = [train(10 * i, loss) for i, loss in enumerate(losses, start=1)]
        write(
            tmp_path / 'model' / f'seed-{seed}', '20260101_000000', [*lines[:2], {'top1': top1, 'step': 20}, *lines[2:]]
        )
    run = plot_logs.read_run(tmp_path / 'model')
    # Where one of them has no value there is no mean.
    assert run.name == 'model' and run.training['loss'] == {10: 2.5, 20: 1.5} and run.validation['top1'] == {20: 60.0}
    figure = plot_logs.draw([run], ['top1'])
    (band,) = figure.axes[0].collections
    (path,) = band.get_paths()
    assert {(10.0, 2.0), (10.0, 3.0), (20.0, 1.0), (20.0, 2.0)} <= {tuple(point) for point in path.vertices.tolist()}


def test_what_cannot_be_drawn_is_one_sentence(work_dirs):
    (work_dirs / 'empty').mkdir()
    for options, sentence in (
        (['none'], 'The work folder none does not exist.'),
        ([work_dirs / 'empty'], f'{work_dirs / "empty"} holds no log of a training'),
        ([work_dirs / 'one', '--metric', 'top5'], '--metric top5 is in no log: there are top1.'),
        ([work_dirs / 'one', '--out', work_dirs / 'x.gif'], 'must end in .png, .svg or .pdf.'),
    ):
        told = run(*options, expect=2)
        assert told.startswith('error: ') and sentence in told and '\n' not in told
