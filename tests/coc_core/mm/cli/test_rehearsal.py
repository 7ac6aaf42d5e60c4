"""What of a training is built and tried before it begins."""

import logging
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import DefaultSampler, pseudo_collate
from mmengine.model import BaseModel
from mmengine.optim import ConstantLR
from mmengine.runner import EpochBasedTrainLoop
from torch import nn
from torch.utils.data import DataLoader

from coc_core.errors import UserError
from coc_core.mm.cli.rehearsal import build_schedules, check_smallest_batch
from coc_core.mm.fault_tolerance.seeding import place_samples


class Model(BaseModel):
    """Normalizes what is left of a map after pooling to `cells` values a channel."""

    def __init__(self, cells=1, norm=nn.BatchNorm1d):
        super().__init__()
        self.cells = cells
        self.norm = norm(3)
        self.seen = 0

    def forward(self, inputs, mode):
        assert mode == 'loss' and self.training
        self.seen += 1
        maps = torch.stack(inputs).unflatten(1, (3, 4))[..., : self.cells]
        return dict(loss=self.norm(maps).sum())


def runner(model, samples, batch_size, **more):
    dataset = [dict(inputs=torch.arange(12.0) + i) for i in range(samples)]
    loader = DataLoader(
        dataset, batch_size=batch_size, sampler=DefaultSampler(dataset), collate_fn=pseudo_collate, **more
    )
    cfg = Config(dict(train_dataloader=dict(batch_size=batch_size, **more)))
    return SimpleNamespace(model=model, cfg=cfg, train_dataloader=place_samples(loader, 0, endless=False))


@pytest.mark.parametrize(
    ('samples', 'batch_size', 'sentence'),
    [
        (9, 4, r'batch_size=4 leaves a last batch of one sample.*to another number, or .*drop_last=True'),
        (8, 1, r'batch_size=1 is one sample.*to at least 2'),
        (1, 4, r'leaves a last batch of one sample'),
    ],
)
def test_a_batch_of_one_value_a_channel_is_told(samples, batch_size, sentence):
    with pytest.raises(UserError, match=sentence):
        check_smallest_batch(runner(Model(), samples, batch_size))


@pytest.mark.parametrize(
    ('model', 'samples', 'batch_size', 'more'),
    [
        (Model(cells=2), 9, 4, {}),
        (Model(), 8, 4, {}),
        (Model(), 10, 4, {}),
        (Model(), 9, 4, dict(drop_last=True)),
        (Model(norm=nn.InstanceNorm1d, cells=2), 8, 1, {}),
        (Model(norm=lambda channels: nn.GroupNorm(1, channels)), 8, 1, {}),
    ],
)
def test_a_batch_that_has_a_variance_passes(model, samples, batch_size, more):
    check_smallest_batch(runner(model, samples, batch_size, **more))


def test_trying_it_changes_nothing():
    model = Model(cells=2).eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    check_smallest_batch(runner(model, 8, 1))
    assert model.seen == 1 and not model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_any_other_error_is_the_models():
    class Broken(Model):
        def forward(self, inputs, mode):
            raise ValueError('mine')

    with pytest.raises(ValueError, match='mine') as caught:
        check_smallest_batch(runner(Broken(), 8, 1))
    assert not isinstance(caught.value, UserError)


def test_an_error_of_somebodys_schedule_keeps_its_trace():
    class Loop:
        param_schedulers, auto_scale_lr, optim_wrapper, train_loop = [], None, None, None

        def build_optim_wrapper(self, wrapper):
            return wrapper

        def scale_lr(self, wrapper, scaling):
            pass

        def build_param_scheduler(self, schedulers):
            raise ValueError('mine')

    with pytest.raises(ValueError, match='mine') as caught:
        build_schedules(Loop())
    assert not isinstance(caught.value, UserError)


@pytest.mark.parametrize(
    ('schedule', 'told'),
    [
        (dict(begin=5, end=20, by_epoch=True), 'ConstantLR begins at epoch 5, after a training of 2 epoch(s)'),
        (dict(begin=8, end=20, by_epoch=False), 'ConstantLR begins at step 8, after a training of 2 epoch(s)'),
        (dict(begin=1, end=20, by_epoch=True), None),
        (dict(begin=7, end=20, by_epoch=False), None),
    ],
)
@pytest.mark.parametrize('named', [False, True])
def test_a_schedule_that_begins_after_the_end_is_told(schedule, told, named, caplog):
    optimizer = torch.optim.SGD(nn.Linear(2, 2).parameters(), lr=0.1)
    loop = EpochBasedTrainLoop.__new__(EpochBasedTrainLoop)
    loop._max_epochs, loop._max_iters, loop.dataloader = 2, 8, range(4)
    schedules = [ConstantLR(optimizer, factor=0.5, **schedule)]
    runner = SimpleNamespace(
        optim_wrapper=None,
        auto_scale_lr=None,
        param_schedulers=dict(a=schedules) if named else schedules,
        train_loop=loop,
        logger=logging.getLogger('schedules'),
        build_optim_wrapper=lambda wrapper: wrapper,
        scale_lr=lambda wrapper, scale: None,
        build_param_scheduler=lambda built: built,
    )
    build_schedules(runner)
    assert [told in message for message in caplog.messages] == ([] if told is None else [True])


@pytest.mark.parametrize(
    ('paramwise', 'told'),
    [
        (
            dict(custom_keys={'norm': dict(lr_mult=0.1), 'backbone': dict(lr_mult=0.1)}),
            r"custom_keys: 'backbone' is",
        ),
        (dict(custom_keys={'norm': dict(lr_mult=0.1)}, norm_decay_mult=0.0), None),
        (dict(layer_decay_rate=0.8), 'layer_decay_rate changes nothing: .*LayerDecayOptimWrapperConstructor'),
    ],
)
@pytest.mark.parametrize('constructor', [None, 'DefaultOptimWrapperConstructor'])
def test_options_of_parameters_that_change_nothing_are_told(paramwise, told, constructor, caplog):
    wrapper = dict(optimizer=dict(type='SGD', lr=0.1), paramwise_cfg=paramwise, constructor=constructor)
    runner = SimpleNamespace(
        model=Model(),
        optim_wrapper=wrapper,
        auto_scale_lr=None,
        param_schedulers=None,
        logger=logging.getLogger('options'),
        build_optim_wrapper=lambda wrapper: wrapper,
        scale_lr=lambda wrapper, scale: None,
    )
    if 'layer_decay_rate' in paramwise:
        with pytest.raises(UserError, match=told):
            build_schedules(runner)
        return
    build_schedules(runner)
    assert [told in message for message in caplog.messages] == ([] if told is None else [True])
