"""What of a training is built and tried before it begins."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from typing import Any

import torch
from mmengine.dataset import InfiniteSampler
from mmengine.dist import get_world_size
from mmengine.model import is_model_wrapper
from mmengine.runner import EpochBasedTrainLoop, Runner
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from coc_core.errors import UserError
from coc_core.mm.data_checks.batches import smallest_batch
from coc_core.mm.fault_tolerance.seeding import SeededDataset
from coc_core.mm.mistakes import building, raised_by_packages
from coc_core.mm.option_keys import PARAMWISE

_REMEDY = 'Change begin, end and T_max together with the length in train_cfg.'


def build_schedules(runner: Runner) -> None:
    """Build the optimizer and its schedules as mmengine does at the begin of a training, but before anything runs.

    Raises:
        UserError: A schedule does not fit the training's length, or an entry of the config is wrong.
    """
    _check_paramwise(runner)
    with building('the optimizer'):
        runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
    runner.scale_lr(runner.optim_wrapper, runner.auto_scale_lr)
    # mmengine scales at each start of a training, and this one is done.
    runner.auto_scale_lr = None
    if runner.param_schedulers is None:
        return
    with building('param_scheduler'):
        try:
            runner.param_schedulers = runner.build_param_scheduler(runner.param_schedulers)
        except (ValueError, AssertionError) as error:
            if not raised_by_packages(error):
                raise
            raise UserError(
                f'param_scheduler does not fit a training of {_length(runner.train_loop)} ({error}): every schedule '
                f'must begin before the end. {_REMEDY}'
            ) from error
    _tell_idle_schedules(runner)


def _check_paramwise(runner: Runner) -> None:
    """Tell what of ``paramwise_cfg`` would change nothing: another backbone has other names and constructors.

    Raises:
        UserError: The constructor does not know an entry.
    """
    config = runner.optim_wrapper if isinstance(runner.optim_wrapper, Mapping) else {}
    paramwise = config.get('paramwise_cfg') or {}
    constructor = config.get('constructor') or 'DefaultOptimWrapperConstructor'
    unknown = sorted(set(paramwise) - PARAMWISE) if constructor == 'DefaultOptimWrapperConstructor' else []
    if unknown:
        raise UserError(
            f"optim_wrapper.paramwise_cfg.{unknown[0]} changes nothing: mmengine's own constructor does not know it. "
            'Take it out, or name the constructor that does (layer_decay_rate: LayerDecayOptimWrapperConstructor).'
        )
    keys = paramwise.get('custom_keys')
    names = [name for name, _ in runner.model.named_parameters()] if keys else []
    if idle := [key for key in keys or () if not any(key in name for name in names)]:
        runner.logger.warning(
            f'optim_wrapper.paramwise_cfg.custom_keys: {", ".join(map(repr, idle))} is in the name of no parameter and '
            f'changes nothing. Names are such as {names[0]} and {names[-1]}.'
        )


def _tell_idle_schedules(runner: Runner) -> None:
    """Warn of schedules that never begin: mmengine trains without them, and a short trial may mean it so."""
    schedules, loop = runner.param_schedulers, runner.train_loop
    for schedule in chain(*schedules.values()) if isinstance(schedules, dict) else schedules:
        length, unit = (loop.max_epochs, 'epoch') if schedule.by_epoch else (loop.max_iters, 'step')
        if schedule.begin >= length:
            runner.logger.warning(
                f'param_scheduler: {type(schedule).__name__} begins at {unit} {schedule.begin}, after a training of '
                f'{_length(loop)}, and changes nothing. {_REMEDY}'
            )


def _length(loop: Any) -> str:
    if isinstance(loop, EpochBasedTrainLoop):
        return f'{loop.max_epochs} epoch(s) of {len(loop.dataloader)} step(s)'
    return f'{loop.max_iters} step(s)'


def check_smallest_batch(runner: Runner) -> None:
    """Run the model on one sample where a batch of training has no more and the model has batch normalization.

    It averages over the batch and the map, and of one value there is no variance. Whether a layer sees but one, such as
    that of UPerNet's smallest pooling or of a point-cloud head, only the model's own forward tells. The statistics stay
    what they are, and random numbers are seeded anew by the first step.

    Raises:
        UserError: A layer sees one value per channel.
    """
    loader, config = runner.train_dataloader, runner.cfg.train_dataloader
    endless = isinstance(loader.batch_sampler.sampler, InfiniteSampler)
    size = config.batch_size if endless else smallest_batch(len(loader.dataset), config, get_world_size())
    model: nn.Module = runner.model.module if is_model_wrapper(runner.model) else runner.model
    if size != 1 or not any(isinstance(module, _BatchNorm) for module in model.modules()):
        return
    try:
        _run_on_one_sample(runner, model)
    except ValueError as error:
        if 'more than 1 value per channel' not in str(error):
            raise
        rest = 'is' if config.batch_size == 1 else 'leaves a last batch of'
        remedy = 'at least 2' if config.batch_size == 1 else 'another number, or train_dataloader.drop_last=True'
        raise UserError(
            f'train_dataloader.batch_size={config.batch_size} {rest} one sample, and a batch normalization of the '
            f'model sees one value per channel then, which has no variance ({error}): set '
            f'train_dataloader.batch_size to {remedy}.'
        ) from error


def _run_on_one_sample(runner: Runner, model: Any) -> None:
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    was_training = model.training
    model.train()
    loader = runner.train_dataloader
    # The loops that can resume ask by index, epoch and place.
    first = (0, 0, 0) if isinstance(loader.dataset, SeededDataset) else 0
    batch = loader.collate_fn([loader.dataset[first]])
    try:
        with torch.no_grad():
            model._run_forward(model.data_preprocessor(batch, True), mode='loss')
    finally:
        model.train(was_training)
        with torch.no_grad():
            for name, buffer in model.named_buffers():
                buffer.copy_(buffers[name])
