"""The options of training: what they change in a config, and what training goes on from."""

import logging
from argparse import Namespace
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config

from coc_core.errors import UserError
from coc_core.mm.cli.training import apply_options, apply_start, starting_point
from coc_core.mm.fault_tolerance.loops import ResumableEpochLoop
from coc_core.mm.fault_tolerance.states import TrainingState


def config(work_dir='work', **entries):
    loader = dict(batch_size=2)
    return Config(
        dict(
            train_dataloader=loader, train_cfg=dict(max_epochs=1), optim_wrapper=dict(type='OptimWrapper'),
            val_dataloader=loader, val_cfg=dict(type='ValLoop'), val_evaluator=dict(type='Accuracy'),
            work_dir=str(work_dir), **entries,
        )
    )  # fmt: skip


def arguments(**given):
    defaults = dict(
        config='a.py', no_validate=False, amp=False, amp_dtype=None, auto_scale_lr=False, resume=None, overwrite=False
    )
    return Namespace(**(defaults | given))


@pytest.mark.parametrize('name', ['train_dataloader', 'train_cfg', 'optim_wrapper'])
def test_a_config_without_training_is_told(name):
    cfg = config()
    cfg[name] = None
    with pytest.raises(UserError, match=f'a.py cannot be trained: it has no {name}'):
        apply_options(cfg, arguments())


def test_validation_can_be_left_out():
    cfg = config()
    apply_options(cfg, arguments(no_validate=True))
    assert cfg.val_cfg is cfg.val_dataloader is cfg.val_evaluator is None and cfg.train_dataloader


@pytest.mark.parametrize(
    ('options', 'before', 'dtype', 'loss_scale'),
    [
        (dict(amp=True), {}, 'float16', 'dynamic'),
        (dict(amp_dtype='bfloat16'), {}, 'bfloat16', 'dynamic'),
        (dict(amp=True), dict(dtype='bfloat16', loss_scale=512.0), 'bfloat16', 512.0),
        (dict(amp_dtype='float16'), dict(dtype='bfloat16'), 'float16', 'dynamic'),
    ],
)
def test_mixed_precision_on_a_gpu(monkeypatch, options, before, dtype, loss_scale):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    cfg = config()
    cfg.optim_wrapper.update(before)
    apply_options(cfg, arguments(**options))
    assert cfg.optim_wrapper == dict(type='AmpOptimWrapper', dtype=dtype, loss_scale=loss_scale)


@pytest.mark.parametrize(
    ('options', 'before', 'has_bfloat16', 'told'),
    [
        (
            dict(amp=True),
            {},
            True,
            '--amp in float16 needs a GPU: on a CPU, --amp-dtype bfloat16 is the mixed precision.',
        ),
        (dict(amp_dtype='float16'), dict(dtype='bfloat16'), True, '--amp in float16 needs a GPU'),
        (
            dict(amp_dtype='bfloat16'),
            {},
            False,
            r'processor with .* \(AVX512-BF16 or AMX\), which this one has not: leave',
        ),
        (dict(amp=True), dict(dtype='bfloat16'), False, 'which this one has not: leave --amp and --amp-dtype out'),
        (dict(amp_dtype='bfloat16'), {}, True, None),
        (dict(amp=True), dict(dtype='bfloat16'), True, None),
    ],
)
def test_mixed_precision_without_a_gpu_is_bfloat16(monkeypatch, options, before, has_bfloat16, told):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    monkeypatch.setattr(torch.cpu, 'get_capabilities', lambda: dict(avx512_f=True, avx512_bf16=has_bfloat16))
    cfg = config()
    cfg.optim_wrapper.update(before)
    if told:
        with pytest.raises(UserError, match=told):
            apply_options(cfg, arguments(**options))
    else:
        apply_options(cfg, arguments(**options))
        assert cfg.optim_wrapper.dtype == 'bfloat16'


def test_the_learning_rate_is_scaled_where_the_config_says_from_what():
    cfg = config(auto_scale_lr=dict(base_batch_size=32))
    apply_options(cfg, arguments(auto_scale_lr=True))
    assert cfg.auto_scale_lr == dict(base_batch_size=32, enable=True)
    with pytest.raises(UserError, match='needs auto_scale_lr.base_batch_size, which a.py does not set'):
        apply_options(config(), arguments(auto_scale_lr=True))


@pytest.fixture
def checkpoints(tmp_path, monkeypatch):
    """A work folder with one checkpoint, and another file elsewhere."""
    monkeypatch.chdir(tmp_path)
    for name in ('work/epoch_1.pth', 'start.pth'):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        torch.save({'state_dict': {}, 'optimizer': {}, 'meta': dict(epoch=1, iter=5, seed=3)}, tmp_path / name)
    return tmp_path / 'work' / 'epoch_1.pth', tmp_path / 'start.pth'


@pytest.mark.parametrize(
    ('option', 'entries', 'found'),
    [
        (None, dict(work_dir='elsewhere'), None),
        ('auto', dict(), 'last'),
        ('START', dict(work_dir='elsewhere'), 'start'),
        # A config asks for it: of the checkpoint that it names, or of the last one.
        (None, dict(resume=True), 'last'),
        (None, dict(resume=True, load_from='START', work_dir='elsewhere'), 'start'),
        # The command line has the last word.
        ('auto', dict(load_from='START'), 'last'),
        (None, dict(load_from='START', work_dir='elsewhere'), None),
    ],
)
def test_what_training_goes_on_from(checkpoints, option, entries, found):
    last, start = checkpoints
    entries = {key: str(start) if value == 'START' else value for key, value in entries.items()}
    cfg = config(**{'work_dir': last.parent, **entries})
    cfg.launcher = 'none'
    state = apply_start(cfg, arguments(resume=str(start) if option == 'START' else option))
    assert (state.path if state else None) == {None: None, 'last': last, 'start': start}[found]
    assert cfg.resume is (state is not None)
    assert cfg.get('load_from') == (str(state.path) if state else entries.get('load_from'))


def test_both_of_mmengines_loops_become_ours_and_no_other(tmp_path):
    for given, becomes in (
        (dict(by_epoch=True, max_epochs=1), dict(type='ResumableEpochLoop', max_epochs=1)),
        (dict(by_epoch=False, max_iters=1), dict(type='ResumableIterLoop', max_iters=1)),
        (dict(type='EpochBasedTrainLoop', max_epochs=1), dict(type='ResumableEpochLoop', max_epochs=1)),
        (dict(type='IterBasedTrainLoop', max_iters=1), dict(type='ResumableIterLoop', max_iters=1)),
        (dict(type='MyLoop', max_iters=1), dict(type='MyLoop', max_iters=1)),
    ):
        cfg = config(tmp_path)
        cfg.train_cfg = given
        apply_start(cfg, arguments())
        assert cfg.train_cfg == becomes


def test_a_start_that_is_not_there_is_told_unless_it_is_an_address(tmp_path):
    with pytest.raises(UserError, match='nowhere.pth does not exist'):
        apply_start(config(tmp_path, load_from=str(tmp_path / 'nowhere.pth')), arguments())
    cfg = config(tmp_path, load_from='https://example.org/a.pth')
    assert apply_start(cfg, arguments()) is None and cfg.load_from == 'https://example.org/a.pth'


def test_what_it_starts_from_must_fit_only_where_it_goes_on(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    loader = SimpleNamespace(dataset=range(8))
    loop = object.__new__(ResumableEpochLoop)
    runner = SimpleNamespace(
        logger=logging.getLogger('run'), work_dir='work', cfg=config(load_from='start.pth'), train_dataloader=loader,
        train_loop=loop,
    )  # fmt: skip
    state = TrainingState(tmp_path / 'epoch_1.pth', dict(iter=5))
    assert starting_point(runner, 'auto', state) == (str(tmp_path / 'epoch_1.pth'), True)
    assert f'Training goes on from {tmp_path}/epoch_1.pth, after 5 steps.' in caplog.messages
    assert starting_point(runner, None, None) == ('start.pth', False)
    runner.cfg = config()
    assert len(caplog.messages) == 1 and starting_point(runner, 'auto', None) is None
    assert caplog.messages[1] == 'There is no checkpoint in work to go on from: training starts afresh.'
