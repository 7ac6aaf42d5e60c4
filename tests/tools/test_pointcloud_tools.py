"""The point-cloud task from end to end on a few small clouds: the tools of every other task, and its own two."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from PIL import Image
from processes import run_tool

from coc_core.mm.mixed_precision import processor_has_bfloat16

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / 'configs' / 'pointcloud' / 'pointmlp-coc_1xb16-12e_digits.py'
TOOLS = ROOT / 'tools'
MODEL = ['embed_dim=4', 'anchors=(24,16,12,8)', 'neighbors=6', 'dim_factors=(2,2,1,1)']


def write(folder):
    """Spheres, boxes and so on would do; here a class is the place of its cloud."""
    folder = folder / 'main_split'
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    for part, count in (('training', 40), ('test', 30)):
        labels = np.arange(count) % 10
        points = random.normal(size=(count, 40, 3)) * 0.1 + labels[:, None, None] / 5
        with h5py.File(folder / f'{part}_objectdataset_augmentedrot_scale75.h5', 'w') as file:
            file['data'], file['label'] = points.astype(np.float32), labels


def options(data, *more):
    phases = [f'{phase}_dataloader' for phase in ('train', 'val', 'test')]
    return [
        '--cfg-options',
        *(f'{phase}.dataset.data_root={data}' for phase in phases),
        *(f'{phase}.dataset.pipeline.0.num_points=32' for phase in phases),
        *(f'{phase}.num_workers=0' for phase in phases),
        *(f'{phase}.batch_size=10' for phase in phases),
        *(f'model.backbone.{option}' for option in MODEL),
        'train_cfg.max_epochs=3',
        'param_scheduler.1.T_max=2',
        *more,
    ]


def start(*command, threads=1):
    environment = {**os.environ, 'OMP_NUM_THREADS': str(threads), 'CUDA_VISIBLE_DEVICES': '', 'PYTHON': sys.executable}
    command = [str(part) for part in command]
    command = [sys.executable, *command] if command[0].endswith('.py') else command
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, start_new_session=True
    )


def run(*command, expect=0):
    if command[0].suffix == '.py':
        done = run_tool(*command, env={'CUDA_VISIBLE_DEVICES': ''})
        code, output = done.returncode, done.stdout + done.stderr
    else:
        process = start(*command)
        output, _ = process.communicate(timeout=300)
        code = process.returncode
    assert code == expect, output[-3000:]
    return output


def scalars(work_dir):
    (file,) = sorted(work_dir.glob('*/vis_data/scalars.json'))[-1:]
    return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """Three epochs in one process."""
    folder = tmp_path_factory.mktemp('points')
    write(folder / 'data')
    run(TOOLS / 'train.py', CONFIG, '--work-dir', folder / 'one', *options(folder / 'data'))
    return folder


def test_testing_gives_the_accuracy_of_the_last_validation(trained):
    metrics = trained / 'metrics.json'
    log = run(
        TOOLS / 'test.py', CONFIG, trained / 'one' / 'epoch_3.pth', '--work-dir', trained / 'test',
        '--out', metrics, '--out-item', 'metrics', *options(trained / 'data'),
    )  # fmt: skip
    last = [line for line in scalars(trained / 'one') if 'OA' in line][-1]
    found = json.loads(metrics.read_text())
    assert (found['OA'], found['mAcc']) == (last['OA'], last['mAcc'])
    assert re.search(r'│ 7 +│ 3 +│ [\d.]+ +│', log)


@pytest.mark.skipif(not processor_has_bfloat16(), reason='the processor has no bfloat16')
def test_it_trains_in_bfloat16(trained):
    work_dir = trained / 'bfloat16'
    precision = ['--no-validate', '--amp-dtype', 'bfloat16']
    run(TOOLS / 'train.py', CONFIG, '--work-dir', work_dir, *precision, *options(trained / 'data'))
    mixed, whole = (torch.load(folder / 'epoch_3.pth', weights_only=False) for folder in (work_dir, trained / 'one'))
    assert all(value.dtype == torch.float32 for value in mixed['state_dict'].values() if value.is_floating_point())
    # The same twelve steps, rounded otherwise.
    key = 'head.layers.0.weight'
    one, other = (state['state_dict'][key] for state in (mixed, whole))
    assert 0 < (one - other).norm() < 0.1 * other.norm()


def test_votes_of_augmented_copies(trained):
    log = run(
        TOOLS / 'test.py', CONFIG, trained / 'one' / 'epoch_3.pth', '--work-dir', trained / 'tta', '--tta',
        '--report', trained / 'tta', *options(trained / 'data', 'tta_pipeline.0.num_points=32'),
    )  # fmt: skip
    accuracy = float(re.findall(r'OA: ([\d.]+)', log)[-1])
    report = (trained / 'tta' / 'report.html').read_text()
    wrong = round(30 * (1 - accuracy / 100))
    assert f'30 samples, {wrong} of them wrong' in report and report.count('data:image/jpeg') == min(wrong, 24)


def test_two_processes_keep_and_test_the_same_model(trained):
    work_dir = trained / 'two'
    run(TOOLS / 'dist_train.sh', CONFIG, '2', '--work-dir', work_dir, *options(trained / 'data'))
    last = [line for line in scalars(work_dir) if 'OA' in line][-1]
    for processes in ('1', '2'):
        metrics = trained / f'metrics-{processes}.json'
        run(
            TOOLS / 'dist_test.sh', CONFIG, work_dir / 'epoch_3.pth', processes, '--work-dir', trained / 'test2',
            '--out', metrics, '--out-item', 'metrics', *options(trained / 'data'),
        )  # fmt: skip
        assert json.loads(metrics.read_text())['OA'] == last['OA']


def test_a_killed_training_goes_on(trained):
    work_dir = trained / 'killed'
    data = trained / 'data'
    arguments = (TOOLS / 'train.py', CONFIG, '--work-dir', work_dir, *options(data, 'train_cfg.max_epochs=30'))
    process = start(*arguments)
    deadline = time.monotonic() + 120
    while not (work_dir / 'epoch_2.pth').exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    log = run(*arguments[:4], '--resume', 'auto', *options(data, 'train_cfg.max_epochs=5'))
    first = next(line for line in log.splitlines() if 'Epoch(train)' in line)
    assert int(re.search(r'Epoch\(train\)\s+\[(\d+)\]', first)[1]) > 2
    assert (work_dir / 'epoch_5.pth').exists()


@pytest.mark.parametrize('color', ['class', 'cluster', 'similarity'])
def test_pictures_of_chosen_clouds(trained, color):
    out = trained / 'pictures'
    checkpoint = trained / 'one' / 'epoch_3.pth'
    run(
        TOOLS / 'analysis_tools' / 'draw_points.py', CONFIG, checkpoint,
        '--samples', '0', '17', '--color', color, '--out', out,
        *options(trained / 'data'),
    )  # fmt: skip
    for place in ('00000', '00017'):
        pixels = np.asarray(Image.open(out / f'{place}_{color}.png').convert('RGB')).reshape(-1, 3)
        strong = {tuple(pixel) for pixel in pixels if np.ptp(pixel.astype(int)) > 80}
        assert len(strong) > (0 if color == 'class' else 8)


def test_what_no_cloud_can_be_drawn_of_is_one_sentence(trained, tmp_path):
    checkpoint = trained / 'one' / 'epoch_3.pth'
    content = torch.load(checkpoint, weights_only=False)
    content['meta']['dataset_meta']['classes'] = content['meta']['dataset_meta']['classes'][::-1]
    torch.save(content, other := tmp_path / 'other.pth')
    (file := tmp_path / 'file').touch()
    for path, data, out, sentence in (
        (other, trained / 'data', tmp_path, 'other.pth was trained with the classes'),
        (checkpoint, tmp_path, tmp_path, 'does not exist'),
        (checkpoint, trained / 'data', file, f'--out {file} is a file: name a folder.'),
    ):
        tool = TOOLS / 'analysis_tools' / 'draw_points.py'
        told = run(tool, CONFIG, path, '--samples', '0', '--out', out, *options(data), expect=2)
        assert sentence in told and 'Traceback' not in told


def test_pictures_of_a_checkpoint_of_other_classes_or_numbers_are_not_taken_for_its_own(trained):
    out, checkpoint = trained / 'others', trained / 'one' / 'epoch_3.pth'
    command = TOOLS / 'analysis_tools' / 'draw_points.py', CONFIG, checkpoint, '--samples', '0', '--out', out
    order = 'test_dataloader.dataset.metainfo.classes=[1,0,2,3,4,5,6,7,8,9]'
    told = run(*command, *options(trained / 'data', order), expect=2)
    assert 'from label 0 on its predictions would count as other classes' in told and not out.exists()
    told = run(*command, *options(trained / 'data', 'model.backbone.neighbors=5'))
    assert 'epoch_3.pth was trained with neighbors=6 where this model has 5.' in told


def test_seeds_are_trained_apart_and_summed_up(trained):
    work_dir = trained / 'seeds'
    command = (
        TOOLS / 'analysis_tools' / 'run_seeds.py', CONFIG, '--seeds', '1', '2', '--work-dir', work_dir,
        *options(trained / 'data', 'train_cfg.max_epochs=2'),
    )  # fmt: skip
    assert re.search(r'OA +[\d.]+ +[\d.]+ +[\d.]+ +[\d.]+\n', run(*command))
    summary = json.loads((work_dir / 'summary.json').read_text())
    values = summary['metrics']['OA']['values']
    assert summary['metrics']['OA']['mean'] == pytest.approx(np.mean(values))
    assert summary['metrics']['OA']['std'] == pytest.approx(np.std(values, ddof=1))
    assert 'Epoch(train)' not in run(*command), 'a complete run must not be repeated'


@pytest.mark.parametrize('tool', ['train.py', 'dataset_converters/check_data.py'])
def test_a_missing_file_is_one_sentence(trained, tmp_path, tool):
    (tmp_path / 'main_split').mkdir()
    extra = ['--work-dir', tmp_path / 'work'] if tool == 'train.py' else []
    output = run(TOOLS / tool, CONFIG, *extra, *options(tmp_path), expect=2 if tool == 'train.py' else 1)
    assert 'training_objectdataset_augmentedrot_scale75.h5 does not exist' in output
    assert 'Traceback' not in output
