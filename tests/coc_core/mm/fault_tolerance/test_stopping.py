"""How a training ends before its end: signals, and losses that are no numbers."""

import multiprocessing
import os
import signal
import subprocess
import time
from datetime import timedelta
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config

from coc_core.checkpoints import read
from coc_core.errors import UserError
from coc_core.mm.fault_tolerance.stopping import StopHook

CODES = {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGUSR1: 75}


@pytest.mark.parametrize('number', CODES)
def test_a_signal_inside_an_epoch_saves_and_says_so(project, number, capfd):
    before = signal.getsignal(number)
    actions = {6: lambda runner: os.kill(os.getpid(), number)}
    options = ['--cfg-options', 'train_dataloader.num_workers=2']
    work = f'stopped by {number}'
    assert project.train(project.config('base'), work, *options, actions=actions) == CODES[number]
    out, err = capfd.readouterr()
    name = signal.Signals(number).name
    assert f'{name}: stopping after this step' in err and 'Traceback' not in out + err
    assert f'{name} stopped the training after 7 steps; ' in out and 'rescue_7.pth holds its state' in out
    assert read(project.folder / work / 'rescue_7.pth')['meta']['iter'] == 7
    # The process of a test goes on; a tool's ends.
    signal.signal(number, before)


def test_a_queue_that_signals_data_workers_too_stops_in_order(project, capfd):
    def signal_all(runner):
        pids = [os.getpid(), *(worker.pid for worker in multiprocessing.active_children())]
        subprocess.run(['kill', '-TERM', *map(str, pids)], check=True)

    before = signal.getsignal(signal.SIGTERM)
    options = ['--cfg-options', 'train_dataloader.num_workers=2']
    code = project.train(project.config('base'), 'queue', *options, actions={6: signal_all, 'val 5': signal_all})
    assert code == 143
    # In the validation after the first epoch.
    assert project.train(project.config('base'), 'queue', '--resume', *options, actions={6: signal_all}) == 143
    out, err = capfd.readouterr()
    assert 'stopped the training after 5 steps' in out and 'stopped the training after 7 steps' in out
    assert 'Traceback' not in out + err and 'worker' not in err
    signal.signal(signal.SIGTERM, before)


def test_a_second_signal_ends_at_once(monkeypatch):
    hook, left = StopHook(), []
    hook._process = os.getpid()
    monkeypatch.setattr('coc_core.mm.fault_tolerance.stopping.os._exit', left.append)
    now = iter([10.0, 10.1, 12.0])
    monkeypatch.setattr('coc_core.mm.fault_tolerance.stopping.time.monotonic', lambda: next(now))
    hook._note(signal.SIGINT, None)
    # Of one Ctrl-C the terminal and a launcher each send one.
    hook._note(signal.SIGINT, None)
    assert left == []
    hook._note(signal.SIGINT, None)
    assert left == [130]


def test_a_data_worker_leaves_a_signal_to_its_parent(capfd, monkeypatch):
    monkeypatch.setattr('coc_core.mm.fault_tolerance.stopping.get_worker_info', lambda: SimpleNamespace(id=0))
    hook = StopHook()
    hook._process = os.getpid() + 1
    hook._note(signal.SIGTERM, None)
    assert hook._signal == 0 and capfd.readouterr().err == ''


@pytest.mark.parametrize('number', CODES)
def test_other_processes_that_a_training_starts_end_by_a_signal(number):
    """Those of a pool: a metric of mmdet that ends its own waits for them."""
    before, hook = signal.signal(number, signal.SIG_DFL), StopHook()
    hook.before_train(SimpleNamespace(cfg=Config()))
    try:
        fork = multiprocessing.get_context('fork')
        ready = fork.Event()
        process = fork.Process(target=lambda: (ready.set(), time.sleep(60)))
        process.start()
        # Python forgets a signal that comes while it forks.
        assert ready.wait(60)
        os.kill(process.pid, number)
        process.join(60)
        assert process.exitcode == -number
    finally:
        hook.after_train(None)
        signal.signal(number, before)
        process.kill()


@pytest.mark.parametrize(('config', 'seconds'), [(dict(env_cfg=dict(dist_cfg=dict(timeout=10))), 10), (dict(), 1800)])
def test_processes_wait_for_each_other_as_long_as_the_config_says(monkeypatch, config, seconds):
    """Wherever it is that one of them hangs."""
    asked = {}
    monkeypatch.setattr('coc_core.mm.fault_tolerance.stopping.get_world_size', lambda: 2)
    monkeypatch.setattr(torch.distributed, 'new_group', lambda **options: asked.update(options))
    monkeypatch.setattr(StopHook, '_check_same_start', lambda self, runner: None)
    hook = StopHook()
    hook.before_train(SimpleNamespace(cfg=Config(config)))
    hook.after_train(None)
    assert asked == dict(backend='gloo', timeout=timedelta(seconds=seconds))


def make_nan(runner):
    runner.model.head.fc.weight.data[:] = float('nan')


def test_losses_that_are_no_numbers_end_the_training(project, capfd):
    assert project.train(project.config('base'), 'nan', actions={13: make_nan}) == 2
    out, err = capfd.readouterr()
    assert 'Traceback' not in err
    # The 15th step is the last: two losses in a row are not three, but the last state cannot be saved.
    assert 'epoch_3.pth is not saved: ' in out
    work = project.folder / 'nan'
    assert sorted(path.name for path in work.glob('*.pth'))[1:] == ['epoch_1.pth', 'epoch_2.pth']
    assert all(bool(value.isfinite().all()) for value in read(work / 'epoch_2.pth')['state_dict'].values())


def test_the_sentence_about_losses_that_are_no_numbers(project, capfd):
    actions = {7: make_nan}
    assert project.train(project.config('base'), 'nan early', actions=actions) == 2
    err = capfd.readouterr().err
    (sentence,) = [line for line in err.splitlines() if line.startswith('error')]
    assert 'The loss is not finite at step 10 (loss nan at a learning rate of ' in sentence
    assert '3 times in a row' in sentence
    assert sentence.count('.png') == 4 and sentence.endswith('nan early/epoch_1.pth.')
    config = project.config('patient', "custom_hooks = [dict(type='StopHook', not_finite=5)]\n")
    assert project.train(config, 'nan patient', '--no-validate', actions={8: make_nan}) == 2
    assert 'at step 13 ' in capfd.readouterr().err


def test_an_impossible_number_is_told():
    with pytest.raises(UserError, match='not_finite=0 must be at least 1'):
        StopHook(not_finite=0)
