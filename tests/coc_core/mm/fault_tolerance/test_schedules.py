"""A training that goes on under another config follows it, as far as there is a place to go on from."""

import json

import pytest

PARAMWISE = 'optim_wrapper = dict(optimizer=dict(weight_decay=0.01), paramwise_cfg=dict(norm_decay_mult=0.0))\n'
SIX_EPOCHS = ['train_cfg.max_epochs=6', 'param_scheduler.0.T_max=6']


def rates(project, work):
    """Return the learning rate of each step."""
    logs = sorted((project.folder / work).glob('*/vis_data/scalars.json'))
    lines = [json.loads(line) for log in logs for line in log.read_text().splitlines()]
    return {line['step']: line['lr'] for line in lines if 'lr' in line}


@pytest.mark.parametrize('kind', ['epochs', 'iterations'])
def test_another_length_follows_the_schedule_of_that_length(project, by_iteration, kind, capfd):
    text = '' if kind == 'epochs' else by_iteration
    longer = SIX_EPOCHS if kind == 'epochs' else ['train_cfg.max_iters=30', 'param_scheduler.0.end=30']
    config = project.config(f'short {kind}', text or '\n')
    assert project.train(config, f'{kind} from the start', '--no-validate', '--cfg-options', *longer) == 0
    assert project.train(config, f'{kind} longer', '--no-validate') == 0
    short = rates(project, f'{kind} longer')
    assert project.train(config, f'{kind} longer', '--no-validate', '--resume', '--cfg-options', *longer) == 0
    wanted, found = (rates(project, f'{kind} {which}') for which in ('from the start', 'longer'))
    assert len(wanted) == 30 and short[15] < wanted[15]
    assert found == {step: (short if step <= 15 else wanted)[step] for step in range(1, 31)}
    what = 'T_max=30, before 15' if kind == 'epochs' else 'end=30, before 15'
    assert f'param_scheduler.0.{what}' in capfd.readouterr().out


@pytest.mark.parametrize('groups', ['one', 'many'])
def test_another_learning_rate_and_weight_decay_are_the_configs(project, cut, capfd, groups):
    options = ['--cfg-options', 'optim_wrapper.optimizer.lr=0.02', 'optim_wrapper.optimizer.weight_decay=0.3']
    config = project.config(f'{groups} groups', PARAMWISE if groups == 'many' else '\n')
    whole, work = f'faster of {groups}', f'{groups} become faster'
    assert project.train(config, whole, '--no-validate', *options) == 0
    assert project.train(config, work, '--no-validate', actions={7: cut}) == 143
    assert project.train(config, work, '--no-validate', '--resume', *options) == 0
    out = capfd.readouterr().out
    assert 'lr=0.02, before 0.01; weight_decay=0.3, before 0.01. It goes on as if' in out
    wanted, found = rates(project, whole), rates(project, work)
    assert [step for step in wanted if found[step] == wanted[step]] == list(range(9, 16)) and found[1] == 0.01
    assert project.state(work, 'epoch_3.pth')['optimizer']['param_groups'][0]['weight_decay'] == 0.3


def test_one_more_schedule_runs_up_to_the_resumed_step(project, cut, capfd):
    warmup = "dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=12)"
    cosine = "dict(type='CosineAnnealingLR', T_max=3, by_epoch=True, convert_to_iter_based=True, eta_min=1e-5)"
    more = project.config('more schedules', f'param_scheduler = [{warmup}, {cosine}]\n')
    assert project.train(more, 'two schedules', '--no-validate') == 0
    assert project.train(project.config('base'), 'then two', '--no-validate', actions={6: cut}) == 143
    assert project.train(more, 'then two', '--no-validate', '--resume') == 0
    assert 'param_scheduler has 2 schedules, before 1' in capfd.readouterr().out
    wanted, found = (rates(project, work) for work in ('two schedules', 'then two'))
    assert [found[step] for step in range(8, 16)] == [wanted[step] for step in range(8, 16)]


def test_a_schedule_that_depends_on_results_has_no_place_to_go_on_from(project, cut, capfd):
    plateau = "dict(type='ReduceOnPlateauLR', monitor='accuracy/top1', rule='greater', patience={})"
    configs = [
        project.config(f'patience {n}', f'param_scheduler = [{plateau.format(n)}]\n') for n in (1, 2)
    ]  # fmt: skip
    assert project.train(configs[0], 'plateau', actions={7: cut}) == 143
    assert project.train(configs[1], 'plateau', '--resume') == 2
    err = capfd.readouterr().err
    assert 'ReduceOnPlateauLR depends on the results so far' in err and 'Traceback' not in err
    assert project.train(configs[0], 'plateau', '--resume') == 0


def test_an_optimizer_of_other_groups_has_no_place_to_go_on_from(project, cut, capfd):
    assert project.train(project.config('base'), 'groups', '--no-validate', actions={7: cut}) == 143
    assert project.train(project.config('many groups', PARAMWISE), 'groups', '--no-validate', '--resume') == 2
    err = capfd.readouterr().err
    assert 'groups of parameters, the saved one 1: take optim_wrapper.paramwise_cfg back' in err
    assert 'Traceback' not in err


def test_a_schedule_that_begins_after_the_end_is_told_before_anything_runs(project, capfd):
    late = "dict(type='CosineAnnealingLR', begin=2, T_max=1, eta_min=0)"
    config = project.config('late', f"param_scheduler = [dict(type='LinearLR', end=2), {late}]\n")
    assert project.train(config, 'late', '--cfg-options', 'train_cfg.max_epochs=1') == 2
    err = capfd.readouterr().err
    assert 'param_scheduler does not fit a training of 1 epoch(s) of 5 step(s)' in err and 'Traceback' not in err
    assert 'begin=2, end=1' in err and not list((project.folder / 'late').glob('*.pth'))


@pytest.mark.parametrize('schedule', ['constant', 'cosine'])
def test_a_learning_rate_is_scaled_once_and_stays_so(project, cut, capfd, schedule):
    text = 'auto_scale_lr = dict(base_batch_size=2)\n' + ('param_scheduler = None\n' if schedule == 'constant' else '')
    config = project.config(f'scaled {schedule}', text)
    work = f'scaled {schedule}'
    assert project.train(config, work, '--no-validate', '--auto-scale-lr', actions={7: cut}) == 143
    assert rates(project, work)[1] == 0.02
    assert project.train(config, work, '--no-validate', '--auto-scale-lr', '--resume') == 0
    found = rates(project, work)
    assert len(found) == 15 and (schedule == 'cosine' or set(found.values()) == {0.02})
    assert 'The config changes the training' not in capfd.readouterr().out
