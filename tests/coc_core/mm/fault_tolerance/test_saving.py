"""What is saved, what stays, and what happens where the disk takes no more."""

import errno
import os
import shutil
import subprocess
from contextlib import suppress

import pytest
import torch
from mmengine.hooks import CheckpointHook
from mmengine.registry import HOOKS

from coc_core.checkpoints import read
from coc_core.mm.fault_tolerance.saving import SafeCheckpointHook


def names(folder):
    return sorted(path.name for path in folder.glob('*.pth'))


def test_it_takes_the_place_of_mmengines_hook():
    assert HOOKS.get('CheckpointHook') is SafeCheckpointHook and issubclass(SafeCheckpointHook, CheckpointHook)


def test_one_older_state_stays_and_the_pointer_names_the_newest(project):
    assert project.train(project.config('base'), 'kept') == 0
    work = project.folder / 'kept'
    assert names(work) == ['best_accuracy_top1_epoch_1.pth', 'epoch_2.pth', 'epoch_3.pth']
    assert (work / 'last_checkpoint').read_text() == str(work / 'epoch_3.pth')
    best = read(work / 'best_accuracy_top1_epoch_1.pth')
    assert 'optimizer' not in best and 'optimizer' in read(work / 'epoch_3.pth')


def test_the_older_best_goes_after_the_newer_one_is_there(project, monkeypatch):
    """Also where a kill kept both, and training goes on from the state that knows of it."""
    removed = []
    real = SafeCheckpointHook._remove
    monkeypatch.setattr(SafeCheckpointHook, '_remove', lambda self, path: (removed.append(path.name), real(self, path)))
    scores = iter([0.1, 0.2, 0.3])
    monkeypatch.setattr('mmpretrain.evaluation.Accuracy.compute_metrics', lambda self, results: {'top1': next(scores)})
    config = project.config('base')
    assert project.train(config, 'better') == 0
    work = project.folder / 'better'
    assert 'best_accuracy_top1_epoch_1.pth' in removed
    assert names(work) == ['best_accuracy_top1_epoch_3.pth', 'epoch_2.pth', 'epoch_3.pth']
    shutil.copy(work / 'best_accuracy_top1_epoch_3.pth', work / 'best_accuracy_top1_epoch_2.pth')
    (work / '.unfinished-abc').mkdir()
    assert project.train(config, 'better', '--resume') == 0
    assert names(work) == ['best_accuracy_top1_epoch_3.pth', 'epoch_2.pth', 'epoch_3.pth']
    assert not (work / '.unfinished-abc').exists()


def test_a_rescue_between_distant_checkpoints(project, cut):
    config = project.config('rare', 'default_hooks = dict(checkpoint=dict(interval=3, rescue_minutes=1e-4))\n')
    assert project.train(config, 'rescued', '--no-validate', actions={9: cut}) == 143
    assert names(project.folder / 'rescued') == ['rescue_10.pth', 'rescue_9.pth']
    assert project.train(config, 'rescued', '--no-validate', '--resume') == 0
    assert names(project.folder / 'rescued') == ['epoch_3.pth']


def test_weights_that_are_not_finite_are_never_saved(project, capfd):
    def break_weights(runner):
        runner.model.head.fc.weight.data[0, 0] = float('nan')

    config = project.config('base')
    actions = {'val 5': break_weights}
    options = ['--cfg-options', 'train_cfg.max_epochs=1', 'default_hooks.checkpoint.save_best=accuracy/top1']
    project.train(config, 'broken', *options, actions=actions)
    work = project.folder / 'broken'
    assert names(work) == ['epoch_1.pth']
    assert bool(torch.isfinite(read(work / 'epoch_1.pth')['state_dict']['head.fc.weight']).all())
    assert 'The best checkpoint is not saved: head.fc.weight of the weights are not finite' in capfd.readouterr().out


@pytest.fixture
def full_disk(monkeypatch):
    """From a step on, checkpoints find no room."""

    def fill(*_):
        def no_room(source, target):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))

        monkeypatch.setattr('coc_core.files.os.replace', no_room)

    return fill


def test_training_goes_on_where_the_disk_is_full_and_fails_at_its_end(project, full_disk, capfd):
    config = project.config('base')
    assert project.train(config, 'full', '--no-validate', actions={6: full_disk}) == 2
    out, err = capfd.readouterr()
    assert names(project.folder / 'full') == ['epoch_1.pth'] and 'Epoch(train) [3][5/5]' in out
    assert out.count('epoch_2.pth cannot be written: No space left on device') == 1
    (sentence,) = [line for line in err.splitlines() if line.startswith('error')]
    assert '2 of its checkpoints could not be saved' in sentence and 'checkpoint is ' in sentence
    assert sentence.endswith('full/epoch_1.pth.')


def test_training_stops_where_the_disk_is_full_if_it_shall(project, full_disk, capfd):
    config = project.config('stop', 'default_hooks = dict(checkpoint=dict(stop_on_failed_save=True))\n')
    assert project.train(config, 'full and stopped', '--no-validate', actions={6: full_disk}) == 2
    out, err = capfd.readouterr()
    assert 'Epoch(train) [3]' not in out and 'epoch_2.pth cannot be written: No space left' in err


def test_no_room_is_told_before_training(project, monkeypatch, capfd):
    usage = shutil.disk_usage('/')._replace(free=1_000)
    monkeypatch.setattr('coc_core.mm.fault_tolerance.saving.shutil.disk_usage', lambda path: usage)
    assert project.train(project.config('base'), 'no room') == 2
    err = capfd.readouterr().err
    assert 'has no room for a checkpoint: about 0.0' in err and ' MB are needed, 0.001 MB are free' in err


def test_a_folder_that_cannot_be_written_is_told(project, capfd):
    (project.folder / 'a file').write_text('')
    assert project.train(project.config('base'), 'a file') == 2
    assert 'a file/.writable cannot be written: File exists' in capfd.readouterr().err


@pytest.fixture
def small_disk(tmp_path):
    mounted = subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=1400k', 'tmpfs', str(tmp_path)], capture_output=True)
    if mounted.returncode:
        pytest.skip('a tmpfs cannot be mounted here')
    yield tmp_path
    subprocess.run(['umount', '-l', str(tmp_path)], check=True)


def test_a_really_full_disk(project, small_disk, capfd):
    work = small_disk / 'work'

    def fill(_):
        with (small_disk / 'ballast').open('wb', buffering=0) as stream, suppress(OSError):
            while True:
                stream.write(bytes(1000))

    config = project.config('base')
    assert project.train(config, str(work), '--no-validate', actions={6: fill}) == 2
    out, err = capfd.readouterr()
    assert 'Traceback' not in err and '2 of its checkpoints could not be saved' in err
    assert 'epoch_2.pth cannot be written: No space left on device (0.000 MB are free)' in out
    assert names(work) == ['epoch_1.pth'] and read(work / 'epoch_1.pth')['meta']['iter'] == 5
    assert project.train(config, str(work), '--resume') == 2
    err = capfd.readouterr().err
    assert '.writable cannot be written: No space left on device' in err and 'Traceback' not in err
    (small_disk / 'ballast').unlink()
    assert project.train(config, str(work), '--resume', '--no-validate') == 0
