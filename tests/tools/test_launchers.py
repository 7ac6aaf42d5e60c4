"""The launchers as a user calls them: real processes on a tiny classifier."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from processes import run_tool

from coc_core.checkpoints import read
from coc_core.errors import UserError
from coc_core.mm.fault_tolerance.faults import Fault
from coc_core.mm.fault_tolerance.states import find_state
from coc_core.mm.fault_tolerance.stopping import EXIT_CODES

TOOLS = Path(__file__).resolve().parents[2] / 'tools'
CONFIG = """
default_scope = 'mmpretrain'
pipeline = [dict(type='LoadImageFromFile', color_type='grayscale'), dict(type='PackInputs')]
model = dict(
    type='ImageClassifier', backbone=dict(type='LeNet5', num_classes=-1), neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=2, in_channels=120),
    data_preprocessor=dict(mean=[127.5], std=[40.0], to_rgb=False))
train_dataloader = dict(
    batch_size=4, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(type='CustomDataset', data_root='images', data_prefix='train', pipeline=pipeline))
val_dataloader = dict(
    batch_size=4, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type='CustomDataset', data_root='images', data_prefix='val', pipeline=pipeline))
test_dataloader = val_dataloader
val_evaluator = test_evaluator = dict(type='Accuracy', topk=1)
train_cfg = dict(by_epoch=True, max_epochs=2)
val_cfg = test_cfg = dict()
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.01, momentum=0.9))
default_hooks = dict(checkpoint=dict(type='CheckpointHook', interval=1))
randomness = dict(seed=0)
"""

KILLED_CONFIG = """
_base_ = BASE
custom_imports = dict(imports=['killing'])
custom_hooks = [dict(type='Kill')]
"""
KILLING = """
import os, signal
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

@HOOKS.register_module()
class Kill(Hook):
    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        start = int(os.environ['TORCHELASTIC_RESTART_COUNT'])
        if start < 3 and runner.iter == 3 * start + 3 and get_rank() == start % 2:
            os.kill(os.getpid(), signal.SIGKILL)
"""


def run(cwd: Path, tool: str, *args: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    command = [str(TOOLS / tool), *args]
    if tool.endswith('.py'):
        return run_tool(*command, cwd=cwd, env={'CUDA_VISIBLE_DEVICES': '', **(env or {})})
    ours = ('PORT', 'NNODES', 'OMP_NUM_THREADS', 'OMP_WAIT_POLICY', 'GOMP_SPINCOUNT')
    variables = {key: value for key, value in os.environ.items() if key not in ours}
    variables.update({'PYTHON': sys.executable, 'CUDA_VISIBLE_DEVICES': '', **(env or {})})
    return subprocess.run(command, cwd=cwd, env=variables, capture_output=True, text=True, timeout=180)


@pytest.fixture(scope='session')
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a config, dark and bright images, and a training of two epochs in work/."""
    folder = tmp_path_factory.mktemp('a project')
    random = np.random.default_rng(0)
    for split, count in (('train', 8), ('val', 6)):
        for label in range(2):
            images = folder / 'images' / split / f'class{label}'
            images.mkdir(parents=True)
            for index in range(count):
                pixels = random.integers(90 * label, 90 * label + 160, (32, 32, 3), dtype=np.uint8)
                cv2.imwrite(str(images / f'{index}.png'), pixels)
    (folder / 'tiny_config.py').write_text(CONFIG)
    done = run(folder, 'train.py', 'tiny_config.py', '--work-dir', 'work')
    assert done.returncode == 0, done.stderr
    return folder


def test_training_saves_checkpoints(project: Path) -> None:
    assert (project / 'work/epoch_2.pth').is_file()


def test_the_console_tells_what_trains_and_the_log_file_everything(project: Path) -> None:
    done = run(project, 'train.py', 'tiny_config.py', '--work-dir', 'quiet', '--no-validate')
    assert done.returncode == 0, done.stderr
    told = done.stdout.splitlines()
    (first,) = [line for line in told if 'tiny_config.py: 0.1 M parameters, 16 samples in 4 batches, 1 x ' in line]
    assert len(told) < 10 and done.stderr == '', done.stdout + done.stderr
    log = (project / first.rpartition('The config and all else: ')[2]).read_text()
    assert 'System environment' in log and 'Config:\n' in log and 'Hooks will be executed' in log
    assert all(line in log for line in told)


def test_a_machine_without_compiler_and_operators_is_as_quiet(project: Path, tmp_path: Path) -> None:
    (tmp_path / 'sitecustomize.py').write_text("import sys\nsys.modules['mmcv._ext'] = None\n")
    env = {**os.environ, 'PATH': str(tmp_path), 'PYTHONPATH': str(tmp_path), 'CUDA_VISIBLE_DEVICES': ''}
    command = [sys.executable, TOOLS / 'train.py', 'tiny_config.py', '--work-dir', 'bare', '--no-validate']
    done = subprocess.run(command, cwd=project, env=env, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0 and done.stderr == '', done.stderr
    assert len(done.stdout.splitlines()) < 10, done.stdout


def test_two_processes_test_like_one(project: Path) -> None:
    config, checkpoint = 'tiny_config.py', 'work/epoch_2.pth'
    one = run(project, 'test.py', config, checkpoint, '--out', 'one.json', '--out-item', 'metrics')
    two = run(project, 'dist_test.sh', config, checkpoint, '2', '--out', 'two of them.json', '--out-item', 'metrics')
    assert one.returncode == two.returncode == 0, one.stderr + two.stderr
    metrics = [json.loads((project / name).read_text()) for name in ('one.json', 'two of them.json')]
    assert metrics[0]['accuracy/top1'] == pytest.approx(metrics[1]['accuracy/top1'])


def test_two_processes_train(project: Path) -> None:
    options = ['--work-dir', 'two processes', '--cfg-options', 'train_cfg.max_epochs=1']
    done = run(project, 'dist_train.sh', 'tiny_config.py', '2', *options)
    assert done.returncode == 0, done.stderr
    assert (project / 'two processes/epoch_1.pth').is_file()
    assert 'Epoch(train) [1][2/2]' in done.stdout or 'GPU number: 2' in done.stdout


def test_killed_training_goes_on(project: Path) -> None:
    work = project / 'killed'
    command = [sys.executable, str(TOOLS / 'train.py'), 'tiny_config.py', '--work-dir', 'killed', '--resume', 'auto']
    victim = subprocess.Popen(
        [*command, '--cfg-options', 'train_cfg.max_epochs=5000'],
        cwd=project,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 90
    while not (work / 'epoch_2.pth').is_file() and time.monotonic() < deadline:
        time.sleep(0.1)
    victim.send_signal(signal.SIGKILL)
    victim.wait()
    state = find_state(str(work))
    assert state is not None
    epoch = state.meta['epoch']
    done = run(
        project,
        'train.py',
        'tiny_config.py',
        '--work-dir',
        'killed',
        '--resume',
        '--cfg-options',
        f'train_cfg.max_epochs={epoch + 1}',
    )
    assert done.returncode == 0, done.stderr
    assert f'goes on from killed/epoch_{epoch}.pth' in done.stdout
    assert f'Epoch(val) [{epoch + 1}]' in done.stdout
    assert f'Epoch(train) [{epoch}]' not in done.stdout


LOG_EVERY_STEP = ['default_hooks.logger.type=LoggerHook', 'default_hooks.logger.interval=1']


def start_two(
    project: Path, work: str, *options: str, config: str = 'tiny_config.py', **variables: str
) -> subprocess.Popen[str]:
    """Start a training of six epochs on two processes; its output goes to a file beside the work folder."""
    command = [str(TOOLS / 'dist_train.sh'), config, '2', '--work-dir', work, '--resume', 'auto']
    environment = {**os.environ, 'PYTHON': sys.executable, 'CUDA_VISIBLE_DEVICES': '', **variables}
    with (project / f'{work}.log').open('a') as log:
        return subprocess.Popen(
            [*command, '--cfg-options', 'train_cfg.max_epochs=6', *LOG_EVERY_STEP, *options],
            cwd=project, stdout=log, stderr=log, env=environment, text=True,
        )  # fmt: skip


def ranks(launcher: subprocess.Popen[str]) -> list[int]:
    children = Path(f'/proc/{launcher.pid}/task/{launcher.pid}/children').read_text().split()
    return [pid for pid in map(int, children) if b'train.py' in Path(f'/proc/{pid}/cmdline').read_bytes()]


def wait_for_steps(project: Path, work: str, steps: int, launcher: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while (project / f'{work}.log').read_text().count('Epoch(train)') < steps:
        assert launcher.poll() is None and time.monotonic() < deadline, (project / f'{work}.log').read_text()[-3000:]
        time.sleep(0.02)


def weights(path: Path) -> dict[str, torch.Tensor]:
    return read(path)['state_dict']


def test_a_training_whose_processes_are_killed_goes_on_by_itself(project: Path, tmp_path: Path) -> None:
    assert start_two(project, 'unbroken').wait(timeout=150) == 0
    config = tmp_path / 'killed_config.py'
    config.write_text(KILLED_CONFIG.replace('BASE', repr(str(project / 'tiny_config.py'))))
    (tmp_path / 'killing.py').write_text(KILLING)
    launcher = start_two(project, 'broken', config=str(config), MAX_RESTARTS='5', PYTHONPATH=str(tmp_path))
    assert launcher.wait(timeout=300) == 0, (project / 'broken.log').read_text()[-3000:]
    log = (project / 'broken.log').read_text()
    assert 'Traceback' not in log and log.count('Training goes on from') == 3
    one, other = weights(project / 'unbroken/epoch_6.pth'), weights(project / 'broken/epoch_6.pth')
    assert all(torch.equal(value, other[name]) for name, value in one.items())


def test_a_stopped_training_goes_on_on_another_number_of_processes(project: Path) -> None:
    launcher = start_two(project, 'moved')
    wait_for_steps(project, 'moved', 3, launcher)
    launcher.send_signal(signal.SIGTERM)
    assert launcher.wait(timeout=60) == 143
    log = (project / 'moved.log').read_text()
    assert 'Traceback' not in log and 'SIGTERM stopped the training after' in log
    state = find_state(str(project / 'moved'))
    assert state is not None and f'after {state.meta["iter"]} steps; ' in log
    alone = ['train.py', 'tiny_config.py', '--work-dir', 'moved', '--resume', '--cfg-options']
    done = run(project, *alone, 'train_cfg.max_epochs=6')
    assert done.returncode == 0, done.stderr
    assert 'Before: 2 process(es) with batches of 4; now: 1 with batches of 8.' in done.stdout
    # Two steps an epoch, as before.
    assert find_state(str(project / 'moved')).meta['iter'] == 12
    refused = run(project, *alone, 'train_cfg.max_epochs=7', 'train_dataloader.batch_size=4')
    assert refused.returncode == 2 and 'set train_dataloader.batch_size=8' in refused.stderr


def test_a_process_that_hangs_ends_the_training(project: Path) -> None:
    launcher = start_two(project, 'hung', 'env_cfg.dist_cfg.timeout=10')
    wait_for_steps(project, 'hung', 1, launcher)
    os.kill(ranks(launcher)[1], signal.SIGSTOP)
    # torchrun gives the one that hangs 30 seconds, and kills it.
    assert launcher.wait(timeout=120) == 128 + signal.SIGKILL
    log = (project / 'hung.log').read_text()
    # The second is of an operation that ended because another one had waited these seconds.
    assert re.search(r'did not answer (within 10 seconds|in time) \(env_cfg.dist_cfg.timeout\)', log), log
    assert 'Traceback' not in log


def test_losses_that_are_no_numbers_are_told_once_and_not_tried_again(project: Path) -> None:
    launcher = start_two(project, 'nan', 'optim_wrapper.optimizer.lr=1e38', MAX_RESTARTS='3')
    assert launcher.wait(timeout=120) == 2
    log = (project / 'nan.log').read_text()
    assert log.count('The loss is not finite at step') == 1 and 'Traceback' not in log
    state = find_state(str(project / 'nan'))
    assert state is None or all(bool(value.isfinite().all()) for value in weights(state.path).values())


@pytest.mark.parametrize(('number', 'code'), [(signal.SIGUSR1, 75), (signal.SIGINT, 130)])
def test_a_signal_to_the_launcher_stops_in_order(project: Path, number: signal.Signals, code: int) -> None:
    """Ctrl-C goes to all processes, and again to the training's from torchrun."""
    launcher = start_two(project, number.name)
    wait_for_steps(project, number.name, 1, launcher)
    for pid in [launcher.pid, *(ranks(launcher) if number is signal.SIGINT else [])]:
        os.kill(pid, number)
    assert launcher.wait(timeout=60) == code
    log = (project / f'{number.name}.log').read_text()
    assert f'{number.name} stopped the training after' in log and 'Traceback' not in log


def test_processes_do_not_outlive_their_launcher(project: Path) -> None:
    launcher = start_two(project, 'orphans')
    wait_for_steps(project, 'orphans', 1, launcher)
    left = ranks(launcher)
    launcher.kill()
    launcher.wait()
    deadline = time.monotonic() + 60
    while any(Path(f'/proc/{pid}').exists() for pid in left) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert len(left) == 2 and not any(Path(f'/proc/{pid}').exists() for pid in left)


def test_a_trained_folder_is_not_trained_again(project: Path) -> None:
    done = run(project, 'train.py', 'tiny_config.py', '--work-dir', 'work')
    assert done.returncode == 2 and 'work holds a training already (epoch_2.pth)' in done.stderr


def test_torchrun_and_trainings_mean_the_same_by_a_code() -> None:
    spec = importlib.util.spec_from_file_location('torchrun_tool', TOOLS / 'torchrun.py')
    torchrun = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(torchrun)
    assert torchrun.CODES == EXIT_CODES
    assert set(torchrun.DECIDED) == {UserError.exit_code, *EXIT_CODES.values()}
    assert Fault.exit_code not in torchrun.DECIDED


def test_a_queues_warning_starts_the_job_again(tmp_path: Path) -> None:
    """Out of a batch job in a new one; in a batch job the same one, which Slurm counts as restarted."""
    script = tmp_path / 'srun'
    script.write_text('#!/usr/bin/env bash\nprintf "[%s]" "$@"; echo\n[[ -e again ]] && exit 0\ntouch again; exit 75\n')
    (tmp_path / 'scontrol').write_text('#!/usr/bin/env bash\necho "scontrol $*"\n')
    for file in (script, tmp_path / 'scontrol'):
        file.chmod(0o755)
    env = {'PATH': f'{tmp_path}:{os.environ["PATH"]}', 'SLURM_JOB_ID': ''}
    lines = run(tmp_path, 'slurm_train.sh', 'part', 'job', 'a.py', env=env).stdout.splitlines()
    assert len(lines) == 2 and '[--signal=USR1@120]' in lines[0]
    assert lines[1] == lines[0].replace('[--launcher]', '[--resume][auto][--launcher]')
    (tmp_path / 'again').unlink()
    lines = run(tmp_path, 'slurm_train.sh', 'part', 'job', 'a.py', env=env | {'SLURM_JOB_ID': '7'}).stdout.splitlines()
    assert len(lines) == 2 and lines[1] == 'scontrol requeue 7'


def test_mistake_is_one_sentence(project: Path) -> None:
    done = run(project, 'train.py', 'tiny_confg.py')
    assert done.returncode == 2
    assert done.stderr.startswith("error: The config tiny_confg.py does not exist. Did you mean 'tiny_config.py'?")
    assert 'Traceback' not in done.stderr


def test_mistake_under_torchrun_is_one_sentence(project: Path) -> None:
    done = run(project, 'dist_train.sh', 'tiny_config.py', '2', '--cfg-options', 'train_cfg.max_epocs=1')
    assert done.returncode == 2
    assert done.stderr.count("train_cfg has no key 'max_epocs'. Did you mean 'max_epochs'") == 1
    assert 'Traceback' not in done.stderr


def test_other_models_checkpoint(project: Path, tmp_path: Path) -> None:
    images = shutil.copytree(project / 'images', tmp_path / 'images')
    shutil.copytree(images / 'val' / 'class1', images / 'val' / 'class2')
    options = ('model.head.num_classes=3', f'test_dataloader.dataset.data_root={images}')
    done = run(project, 'test.py', 'tiny_config.py', 'work/epoch_2.pth', '--cfg-options', *options)
    assert done.returncode == 2
    assert '2 of another shape (head.fc.weight [2, 120] where the model has [3, 120], head.fc.bias' in done.stderr
    assert 'Traceback' not in done.stderr


@pytest.mark.parametrize(
    ('tool', 'args'),
    [
        ('dist_train.sh', ['config.py']),
        ('dist_test.sh', ['config.py', 'a.pth']),
        ('slurm_train.sh', ['part', 'job']),
        ('slurm_test.sh', ['part', 'job', 'config.py']),
    ],
)
def test_usage(tmp_path: Path, tool: str, args: list[str]) -> None:
    done = run(tmp_path, tool, *args)
    assert done.returncode == 2
    assert done.stderr.startswith('usage: ')


@pytest.mark.parametrize('gpus', ['0', '-1', 'two', ''])
def test_gpus_must_be_positive(tmp_path: Path, gpus: str) -> None:
    done = run(tmp_path, 'dist_train.sh', 'config.py', gpus)
    assert done.returncode == 2
    assert done.stderr == f"error: GPUS must be a positive number, not '{gpus}'.\n"


def fake(folder: Path, name: str) -> dict[str, str]:
    """An executable that prints its arguments, each in brackets, and where it stands in PATH."""
    script = folder / name
    script.write_text(
        '#!/usr/bin/env bash\nif [[ $1 == -c ]]; then echo 12345; exit; fi\n'
        'printf "[%s]" "$@"; echo " threads=${OMP_NUM_THREADS:-} waiting=${OMP_WAIT_POLICY:-}${GOMP_SPINCOUNT:-}"\n'
    )
    script.chmod(0o755)
    return {'PATH': f'{folder}:{os.environ["PATH"]}', 'PYTHON': str(script) if name == 'python' else 'python'}


def test_arguments_of_torchrun(tmp_path: Path) -> None:
    env = fake(tmp_path, 'python')
    alone = run(tmp_path, 'dist_train.sh', 'a config.py', '1', '--work-dir', 'with space', env=env).stdout
    assert '[--master_port=12345]' in alone
    assert '[a config.py][--work-dir][with space][--launcher][pytorch]' in alone
    assert f'threads={os.sysconf("SC_NPROCESSORS_ONLN")}' in alone
    assert 'waiting=3000' in alone
    chosen = run(tmp_path, 'dist_train.sh', 'a config.py', '1', env={**env, 'OMP_WAIT_POLICY': 'ACTIVE'}).stdout
    assert 'waiting=ACTIVE\n' in chosen
    many = run(
        tmp_path,
        'dist_train.sh',
        'a config.py',
        '8',
        env={**env, 'NNODES': '4', 'NODE_RANK': '2', 'MASTER_ADDR': 'head'},
    ).stdout
    assert '[--nnodes=4][--node_rank=2][--master_addr=head][--master_port=29500][--nproc_per_node=8]' in many
    chosen = run(tmp_path, 'dist_train.sh', 'a config.py', '1', env={**env, 'PORT': '4000'}).stdout
    assert '[--master_port=4000]' in chosen


def test_arguments_of_srun(tmp_path: Path) -> None:
    env = fake(tmp_path, 'srun')
    env.update(GPUS='16', SRUN_ARGS='--qos high')
    done = run(tmp_path, 'slurm_test.sh', 'part', 'my job', 'a config.py', 'a.pth', '--out', 'b c.pkl', env=env).stdout
    assert '[-p][part][--job-name=my job][--gres=gpu:8][--ntasks=16][--ntasks-per-node=8]' in done
    assert '[--qos][high]' in done
    assert '[a config.py][a.pth][--out][b c.pkl][--launcher][slurm]' in done
