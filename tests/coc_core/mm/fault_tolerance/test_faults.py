"""Faults of the machine, told in one sentence."""

import multiprocessing
import os
import signal

import pytest
import torch

from coc_core.errors import UserError
from coc_core.mm.fault_tolerance.faults import Fault, explained


@pytest.mark.parametrize(
    ('text', 'sentence'),
    [
        (
            'DataLoader worker (pid 5) is killed by signal: Killed. ',
            'A data worker was killed by signal: Killed. .*lower train_dataloader.num_workers',
        ),
        ('DataLoader worker (pid(s) 5, 6) exited unexpectedly', 'A data worker exited unexpectedly.'),
        (
            'DataLoader worker (pid 5) is killed by signal: Bus error. It is possible that ...',
            'Shared memory is full.*/dev/shm',
        ),
        (
            'unable to allocate shared memory(shm) for file </torch_1_2_3>: No space left on device (28)',
            'Shared memory is full',
        ),
        ('DataLoader timed out after 30 seconds', 'No data worker brought a batch within 30 seconds'),
        (
            '[../gloo/transport/tcp/buffer.cc:72] Timed out waiting 1800000ms for recv operation',
            r'did not answer within 1800 seconds \(env_cfg',
        ),
        (
            '[../gloo/transport/tcp/pair.cc:547] Application timeout caused pair closure',
            r'did not answer in time \(env_cfg',
        ),
        ('Connection closed by peer [127.0.0.1]:1', 'Another process of the training has ended'),
    ],
)
def test_what_failed_outside_is_one_sentence(monkeypatch, text, sentence):
    monkeypatch.setattr('coc_core.mm.fault_tolerance.faults.get_world_size', lambda: 2)
    with pytest.raises(Fault, match=sentence) as caught, explained():
        raise RuntimeError(text)
    assert caught.value.exit_code == 1


@pytest.mark.parametrize('error', [ConnectionResetError(104, 'reset'), FileNotFoundError(2, 'socket'), EOFError()])
def test_a_worker_that_ends_while_it_hands_over_a_batch(error):
    names = {'error': error}
    exec(compile('def take(): raise error', 'site-packages/torch/multiprocessing/reductions.py', 'exec'), names)
    with pytest.raises(Fault, match='^A data worker ended while it handed over a batch.*num_workers'), explained():
        names['take']()
    with pytest.raises(type(error)) as caught, explained():
        raise type(error)(*error.args)
    assert not isinstance(caught.value, UserError)


def test_news_of_a_dead_worker_that_comes_while_its_loss_is_explained():
    def tell(*_):
        raise RuntimeError('DataLoader worker (pid 7) is killed by signal: Killed.')

    def take():
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        raise ConnectionResetError(104, 'reset')

    names = {'take': take}
    exec(compile('def load(): take()', 'site-packages/torch/multiprocessing/reductions.py', 'exec'), names)
    earlier = signal.signal(signal.SIGALRM, tell)
    try:
        with pytest.raises(Fault, match='^A data worker was killed by signal: Killed.*num_workers'), explained():
            names['load']()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, earlier)


def test_a_full_gpu_is_no_reason_to_start_again():
    with pytest.raises(UserError, match="The GPU's memory is full.*batch_size") as caught, explained():
        raise torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 2.00 GiB.\nmore')
    assert caught.value.exit_code == 2


def test_any_other_error_passes():
    with pytest.raises(RuntimeError, match='shapes') as caught, explained():
        raise RuntimeError('shapes differ')
    with pytest.raises(ConnectionError, match='a server of logs') as caught, explained():
        raise ConnectionError('Connection refused by a server of logs')
    assert not isinstance(caught.value, UserError)


def test_a_killed_data_worker(project, capfd):
    def kill_worker(runner):
        os.kill(multiprocessing.active_children()[-1].pid, signal.SIGKILL)

    options = ['train_dataloader.num_workers=2', 'train_dataloader.prefetch_factor=2', 'train_cfg.max_epochs=30']
    config = project.config('base')
    assert (
        project.train(config, 'killed worker', '--no-validate', '--cfg-options', *options, actions={6: kill_worker})
        == 1
    )
    err = capfd.readouterr().err
    assert 'error: A data worker' in err and 'Traceback' not in err


def test_a_file_that_vanishes(project, capfd):
    image = project.folder / 'images' / 'train' / 'class0' / '0.png'
    content = image.read_bytes()
    try:
        code = project.train(project.config('base'), 'vanished', actions={5: lambda runner: image.unlink()})
    finally:
        image.write_bytes(content)
    err = capfd.readouterr().err
    assert code == 2 and 'class0/0.png' in err and 'Traceback' not in err
