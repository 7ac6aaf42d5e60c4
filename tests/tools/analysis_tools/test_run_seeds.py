"""tools/analysis_tools/run_seeds.py: no number that is not what it says. What trains and tests is stood in for here."""

import hashlib
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from coc_core.mm.cli.start import run_tool

ROOT = Path(__file__).parents[3]
TOOL = ROOT / 'tools' / 'analysis_tools' / 'run_seeds.py'
CONFIG = """
default_scope = 'mmpretrain'
custom_imports = dict(imports=['mmpretrain_plugin'])
model = dict(type='ImageClassifier')
train_dataloader = dict(batch_size=4, num_workers=2, dataset=dict(
    type='CustomDataset', data_root={root!r}, data_prefix='train', pipeline=[dict(type='LoadImageFromFile')]))
test_dataloader = dict(batch_size=4, dataset=dict(type='CustomDataset', data_root={root!r}, data_prefix='test'))
train_cfg = dict(by_epoch=True, max_epochs=3)
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.1))
default_hooks = dict(checkpoint=dict(type='CheckpointHook', save_best={best!r}))
"""


class Seeds:
    """The tool, in the place of whose trainings and tests stands what they leave."""

    def __init__(self, folder):
        spec = importlib.util.spec_from_file_location('run_seeds_tool', TOOL)
        self.tool = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(self.tool)
        self.tool.run = self._run
        self.folder, self.work = folder, folder / 'work'
        self.ran, self.metrics, self.before_test = [], {}, lambda: None
        for phase in ('train', 'test'):
            for label in range(2):
                path = folder / 'images' / phase / f'class{label}' / f'{phase}.png'
                path.parent.mkdir(parents=True)
                Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(path)
        self.config()

    def config(self, best=None, edit=lambda text: text):
        text = CONFIG.format(root=str(self.folder / 'images'), best=best)
        (self.folder / 'config.py').write_text(edit(text))

    def _run(self, script, config, *words):
        words = [str(word) for word in words]
        work = Path(words[words.index('--work-dir') + 1])
        seed = int(words[words.index('--cfg-options') + 1].rpartition('=')[2])
        self.ran.append((script.name, seed))
        if script.name == 'dist_train.sh':
            content = {'state_dict': {}, 'optimizer': {}, 'meta': dict(epoch=1, iter=seed)}
            torch.save(content, work / 'epoch_1.pth')
            (work / 'last_checkpoint').write_text(f'/moved/{work.name}/epoch_1.pth')
            self.before_test()
        else:
            Path(words[words.index('--out') + 1]).write_text(json.dumps(self.metrics.get(seed, {'top1': 50.0 + seed})))

    def __call__(self, *arguments, expect=0):
        self.ran.clear()
        argv, sys.argv = sys.argv, ['run_seeds.py', str(self.folder / 'config.py'), '--work-dir', str(self.work)]
        sys.argv += map(str, arguments)
        try:
            assert run_tool(self.tool.run_seeds, self.tool.parse_args()) == expect
        finally:
            sys.argv = argv

    def summary(self):
        return json.loads((self.work / 'summary.json').read_text())


@pytest.fixture
def seeds(tmp_path):
    return Seeds(tmp_path)


def test_what_is_complete_is_not_repeated_and_what_was_interrupted_goes_on(seeds):
    seeds('--seeds', 0, 1)
    assert seeds.summary()['metrics'] == {
        'top1': {'values': [50.0, 51.0], 'mean': 50.5, 'std': pytest.approx(0.5**0.5)}
    }
    assert seeds.summary()['checkpoints_sha256'] == [
        hashlib.sha256((seeds.work / f'seed-{seed}' / 'epoch_1.pth').read_bytes()).hexdigest() for seed in (0, 1)
    ]
    (seeds.work / 'seed-1' / 'metrics.json').unlink()
    # How fast it is, what it says and where the data lies changes no number.
    shutil.move(seeds.folder / 'images', seeds.folder / 'moved')
    seeds.config(edit=lambda text: text.replace("/images'", "/moved'").replace('num_workers=2', 'num_workers=0'))
    seeds('--seeds', 0, 1, 2)
    assert seeds.ran == [('dist_train.sh', 1), ('dist_test.sh', 1), ('dist_train.sh', 2), ('dist_test.sh', 2)]


@pytest.mark.parametrize(
    ('arguments', 'told'),
    [
        (['--cfg-options', 'train_cfg.max_epochs=4'], 'train_cfg.max_epochs is 4 now, 3 before'),
        (['--processes', '2'], 'processes is 2 now, 1 before'),
        (['--cfg-options', 'optim_wrapper.optimizer.nesterov=True'], 'nesterov is True now, not set before'),
    ],
)
def test_runs_of_other_settings_are_not_averaged(seeds, capsys, arguments, told):
    seeds('--seeds', 0)
    for chosen in ([0], [0, 1]):
        seeds('--seeds', *chosen, *arguments, expect=2)
        assert 'seed-0 holds a run of something else' in (error := capsys.readouterr().err) and told in error
        assert not seeds.ran


@pytest.mark.parametrize('phase', ['train', 'test'])
def test_runs_on_other_samples_are_not_averaged(seeds, capsys, phase):
    seeds('--seeds', 0)
    path = seeds.folder / 'images' / phase / 'class0' / f'{phase}.png'
    path.rename(path.with_name('another.png'))
    seeds('--seeds', 0, 1, expect=2)
    assert f'other samples in the {phase} data' in capsys.readouterr().err
    assert not seeds.ran


def test_a_config_that_is_edited_while_it_trains_is_told(seeds, capsys):
    seeds.before_test = lambda: seeds.config(edit=lambda text: text.replace('lr=0.1', 'lr=0.2'))
    seeds('--seeds', 0, expect=2)
    assert 'optim_wrapper.optimizer.lr is 0.2 now, 0.1 before' in capsys.readouterr().err
    assert seeds.ran == [('dist_train.sh', 0)]


def test_a_config_that_is_edited_between_two_seeds_is_told(seeds, capsys):
    seeds('--seeds', 1)
    seeds.config(edit=lambda text: text.replace('lr=0.1', 'lr=0.2'))
    seeds('--seeds', 0, 1, expect=2)
    assert 'lr is 0.2 now, 0.1 before' in capsys.readouterr().err
    assert seeds.summary()['seeds'] == [1]


@pytest.mark.parametrize(
    ('arguments', 'told'),
    [
        (['--seeds', '0', '1', '0'], '--seeds has 0 twice'),
        (['--cfg-options', 'randomness.seed=3'], '--seeds gives each its own'),
        (['--cfg-options', 'randomness=dict(deterministic=True)'], '--seeds gives each its own'),
        (
            ['--cfg-options', 'default_hooks.checkpoint.save_best=[top1,top5]'],
            'has 2 metrics, each with a checkpoint of its own: name the one',
        ),
    ],
)
def test_what_would_count_one_training_as_several_is_refused(seeds, capsys, arguments, told):
    seeds(*arguments, expect=2)
    assert told in capsys.readouterr().err and not seeds.ran


def test_metrics_that_are_missing_or_no_numbers_are_told(seeds, capsys):
    seeds.metrics = {0: {'top1': 1.0, 'mIoU': float('nan'), 'top5': 2.0}, 1: {'top1': 3.0, 'mIoU': 4.0, 'other': 'a'}}
    seeds('--seeds', 0, 1)
    printed, told = capsys.readouterr()
    assert 'top5 is left out: seed 1 has none.' in told and 'mIoU has no mean' in told
    assert seeds.summary()['metrics']['mIoU'] == {'values': [None, 4.0], 'mean': None, 'std': None}
    assert (
        set(seeds.summary()['metrics']) == {'top1', 'mIoU'} and 'NaN' not in (seeds.work / 'summary.json').read_text()
    )
    assert printed.splitlines()[-2].split() == ['mIoU', 'nan', '4.00', 'nan', 'nan']
    seeds.metrics = {2: {}, 3: {'unlike': 1.0}}
    seeds('--seeds', 2, expect=2)
    assert 'metrics.json holds no number' in capsys.readouterr().err
    seeds('--seeds', 0, 3, expect=2)
    assert 'No metric was measured with every seed' in capsys.readouterr().err


def test_the_checkpoint_that_the_config_chooses_is_tested(seeds):
    (seeds.work / 'seed-0').mkdir(parents=True)
    names = [f'best_top1_epoch_{number}.pth' for number in (9, 10)]
    for age, name in enumerate(names):
        # The clock went backwards.
        (seeds.work / 'seed-0' / name).write_bytes(name.encode())
        os.utime(seeds.work / 'seed-0' / name, (1000 - age, 1000 - age))
    shutil.copytree(seeds.work, seeds.folder / 'again')
    seeds('--seeds', 0)
    record = seeds.work / 'seed-0' / 'run.json'
    assert json.loads(record.read_text())['checkpoint'] == 'epoch_1.pth'
    seeds.config(best='top1')
    seeds.work = seeds.folder / 'again'
    seeds('--seeds', 0)
    assert seeds.summary()['checkpoints_sha256'] == [hashlib.sha256(names[1].encode()).hexdigest()]
    # What was tested is what the record says, whatever lies there later.
    (seeds.work / 'seed-0' / names[1]).write_bytes(b'another')
    seeds('--seeds', 0)
    assert seeds.summary()['checkpoints_sha256'] == [hashlib.sha256(names[1].encode()).hexdigest()]


def test_a_folder_that_does_not_say_what_was_trained_is_told(seeds, capsys):
    seeds('--seeds', 0)
    (seeds.work / 'seed-0' / 'run.json').unlink()
    seeds('--seeds', 0)
    assert 'seed-0 does not say of what config and data it is: its metrics' in capsys.readouterr().err


CHILD = 'import signal, sys, time; signal.signal({0}, lambda *a: sys.exit(5)); print("on", flush=True); time.sleep(60)'
PARENT = """
import sys
from coc_core.mm.cli.children import run_child
sys.exit(run_child([sys.executable, '-c', sys.argv[1]]))
"""


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_reaches_what_trains(number):
    command = [sys.executable, '-c', PARENT, CHILD.format(int(number))]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as parent:
        assert parent.stdout.readline() == b'on\n'
        started = time.monotonic()
        parent.send_signal(number)
        assert parent.wait(30) == 5 and time.monotonic() - started < 30


def test_a_killed_tool_has_the_code_of_its_signal():
    command = [sys.executable, '-c', PARENT, 'import os; os.kill(os.getpid(), 9)']
    assert subprocess.run(command, cwd=ROOT).returncode == 137
