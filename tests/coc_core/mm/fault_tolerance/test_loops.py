"""A training that was cut and went on equals one in one go, bit for bit."""

import pytest
import torch

from coc_core.mm.mixed_precision import processor_has_bfloat16

EMA = "custom_hooks = [dict(type='EMAHook', momentum=0.1, update_buffers=True)]\n"
ACCUMULATION = 'optim_wrapper = dict(accumulative_counts=3)\n'


@pytest.fixture(scope='module')
def finished(_project, by_iteration):
    """Configs whose training was done in one go, once each: the name of the folder of the last state."""
    done = {}

    def train(project, name, text):
        if name not in done:
            config = project.config(name, text)
            assert project.train(config, f'{name} in one go') == 0
            done[name] = config
        return done[name], f'{name} in one go'

    return train


KINDS = {
    'epochs': ('', 'epoch_3.pth'),
    'iterations': ('BY_ITERATION', 'iter_15.pth'),
    'ema': (EMA, 'epoch_3.pth'),
    'accumulation': (ACCUMULATION, 'epoch_3.pth'),
    'ema and accumulation by iteration': ('BY_ITERATION' + EMA + ACCUMULATION, 'iter_15.pth'),
    'checkpoints inside epochs': (
        'default_hooks = dict(checkpoint=dict(by_epoch=False, interval=2))\n',
        'iter_15.pth',
    ),
}


@pytest.mark.parametrize(
    ('kind', 'step'), [*((kind, step) for kind in KINDS for step in (4, 7)), ('epochs', 0), ('epochs', 14)]
)
def test_a_training_cut_at_a_step_goes_on_as_if_nothing_had_happened(
    project, finished, differences, by_iteration, cut, kind, step
):
    text, last = KINDS[kind]
    text = text.replace('BY_ITERATION', by_iteration) or '\n'
    config, whole = finished(project, kind, text)
    work = f'{kind} cut at {step}'
    assert project.train(config, work, actions={step: cut}) == 143
    assert project.train(config, work, '--resume') == 0
    assert differences(project.state(whole, last), project.state(work, last)) == []
    names = [sorted(path.name for path in (project.folder / w).glob('*.pth')) for w in (whole, work)]
    assert names[0] == names[1]


@pytest.mark.skipif(torch.cuda.is_available() or not processor_has_bfloat16(), reason='about CPUs with bfloat16')
def test_a_training_in_bfloat16_on_a_cpu_goes_on_too(project, finished, differences, cut):
    config, in_float32 = finished(project, 'epochs', '\n')
    options = ['--amp-dtype', 'bfloat16']
    assert project.train(config, 'bfloat16 in one go', *options) == 0
    assert project.train(config, 'bfloat16 cut', *options, actions={7: cut}) == 143
    assert project.train(config, 'bfloat16 cut', '--resume', *options) == 0
    whole, cut_state, other = (
        project.state(work, 'epoch_3.pth') for work in ('bfloat16 in one go', 'bfloat16 cut', in_float32)
    )
    assert differences(whole, cut_state) == []
    assert 'state_dict.head.fc.weight' in differences(whole, other)
    assert {value.dtype for value in whole['state_dict'].values()} == {torch.float32}


def test_every_cut_of_one_training_adds_up_to_nothing(project, finished, differences, cut):
    """Cut inside each epoch and in each validation, and with 0, 2 and 5 workers in turn."""
    config, whole = finished(project, 'epochs', '\n')
    for number, step in enumerate([1, 'val 5', 8, 'val 10', 13, 'val 15']):
        workers = [0, 2, 5][number % 3]
        options = ['--cfg-options', f'train_dataloader.num_workers={workers}']
        assert project.train(config, 'cut often', '--resume', *options, actions={step: cut}) == 143
    assert project.train(config, 'cut often', '--resume') == 0
    assert differences(project.state(whole, 'epoch_3.pth'), project.state('cut often', 'epoch_3.pth')) == []


@pytest.mark.parametrize('workers', [2, 5])
def test_samples_do_not_depend_on_the_number_of_workers(project, finished, differences, workers):
    config, whole = finished(project, 'epochs', '\n')
    work = f'{workers} workers'
    options = [f'train_dataloader.num_workers={workers}', 'train_dataloader.persistent_workers=True']
    assert project.train(config, work, '--cfg-options', *options) == 0
    assert differences(project.state(whole, 'epoch_3.pth'), project.state(work, 'epoch_3.pth')) == []


def test_a_seed_that_nobody_named_is_kept(project, differences, cut):
    config = project.config('no seed', 'randomness = dict(seed=None)\n')
    assert project.train(config, 'no seed in one go') == 0
    seed = project.state('no seed in one go', 'epoch_3.pth')['meta']['seed']
    options = ['--cfg-options', f'randomness.seed={seed}']
    assert project.train(config, 'no seed cut', *options, actions={7: cut}) == 143
    assert project.train(config, 'no seed cut', '--resume') == 0
    states = [project.state(work, 'epoch_3.pth') for work in ('no seed in one go', 'no seed cut')]
    assert differences(*states) == []


def test_the_comparison_sees_a_difference(project, finished, differences):
    config, whole = finished(project, 'epochs', '\n')
    assert project.train(config, 'another seed', '--cfg-options', 'randomness.seed=4') == 0
    found = differences(project.state(whole, 'epoch_3.pth'), project.state('another seed', 'epoch_3.pth'))
    assert 'state_dict.head.fc.weight' in found and any(name.startswith('log.train/loss') for name in found)


def test_validation_changes_nothing_in_training(project, finished, differences):
    config, whole = finished(project, 'epochs', '\n')
    assert project.train(config, 'not validated', '--no-validate') == 0
    states = [project.state(work, 'epoch_3.pth') for work in (whole, 'not validated')]
    assert [name for name in differences(*states) if name.startswith(('state_dict', 'optimizer'))] == []


def test_films_have_the_same_frames(project, cut):
    hook = "custom_hooks = [dict(type='ClusterVisualizationHook', samples=1, interval=4, by_epoch=False, size=64)]\n"
    config = project.config('film', hook)
    assert project.train(config, 'film in one go') == 0
    for step in (5, 9):
        assert project.train(config, 'film cut', '--resume', actions={step: cut}) == 143
    assert project.train(config, 'film cut', '--resume') == 0
    folders = [project.folder / work / 'clusters' for work in ('film in one go', 'film cut')]
    names = [sorted(str(path.relative_to(folder)) for path in folder.rglob('*.*')) for folder in folders]
    assert names[0] == names[1]
    films = [[path.read_bytes() for path in sorted(folder.glob('*.gif'))] for folder in folders]
    assert films[0] and films[0] == films[1]


def test_a_training_that_was_to_overwrite_goes_on_where_a_launcher_starts_it_again(
    project, finished, differences, cut, monkeypatch
):
    config, whole = finished(project, 'epochs', '\n')
    assert project.train(config, 'overwritten', actions={7: cut}) == 143
    assert project.train(config, 'overwritten', '--overwrite', actions={8: cut}) == 143
    monkeypatch.setenv('TORCHELASTIC_RESTART_COUNT', '1')
    seen = []
    actions = {step: lambda runner: seen.append(runner.iter) for step in (0, 8, 9)}
    assert project.train(config, 'overwritten', '--overwrite', actions=actions) == 0
    assert seen == [9]
    assert differences(project.state(whole, 'epoch_3.pth'), project.state('overwritten', 'epoch_3.pth')) == []
