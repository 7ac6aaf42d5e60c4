"""Schedules of learning rates and the like, and options of the optimizer, of a training that goes on."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop, Runner

from coc_core.errors import UserError

# What a schedule reaches by itself; the rest of it is what the config says.
_PROGRESS = frozenset({'last_step', '_global_step', '_last_value', 'best', 'num_bad_epochs', 'cooldown_counter'})


class FollowConfigHook(Hook):
    """Has a training that goes on follow the config's schedules and options of the optimizer, not the saved ones.

    mmengine takes both from the checkpoint, so that another length, milestone or learning rate changes nothing, or ends
    in the middle. Where the config says what the checkpoint says, the checkpoint's stay, to the bit. Otherwise the
    config's schedules run up to the resumed step first, and the log says what is other than before.

    Raises:
        UserError: In `after_load_checkpoint`: a changed schedule depends on more than the step, or the optimizer has
            other groups of parameters.
    """

    # Before what only loads the model.
    priority = 'NORMAL'

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Put what the config says in the place of what was saved, where they differ."""
        if 'param_groups' not in checkpoint['optimizer']:
            runner.logger.warning('Several optimizers go on with their saved schedules, whatever the config says.')
            return
        schedules, saved = runner.param_schedulers or [], checkpoint.get('param_schedulers') or []
        groups, saved_groups = runner.optim_wrapper.param_groups, list(checkpoint['optimizer']['param_groups'])
        if 'base_param_settings' in checkpoint['optimizer']:
            # mmengine's wrapper counts what its groups derive from as one more.
            saved_groups.append(checkpoint['optimizer']['base_param_settings'])
        if len(groups) != len(saved_groups):
            raise UserError(
                f'The optimizer has {len(groups)} groups of parameters, the saved one {len(saved_groups)}: take '
                'optim_wrapper.paramwise_cfg back, or start from the weights with load_from.'
            )
        scheduled = {schedule.param_name for schedule in schedules}
        if 'momentum' in scheduled:
            # Where Adam keeps it.
            scheduled.add('betas')
        changes = [
            *_schedule_changes([_constants(schedule.state_dict()) for schedule in schedules], map(_constants, saved)),
            *_option_changes(groups, saved_groups, scheduled),
        ]
        if not changes:
            return
        _run_to(runner, schedules, checkpoint['meta']['iter'])
        if saved:
            checkpoint['param_schedulers'] = [schedule.state_dict() for schedule in schedules]
        for group, saved_group in zip(groups, saved_groups, strict=True):
            saved_group.update({key: value for key, value in group.items() if key in saved_group and key != 'params'})
        rates = sorted({group['lr'] for group in groups})
        runner.logger.warning(
            f'The config changes the training that goes on: {"; ".join(changes)}. It goes on as if the config had said '
            f'so from the start: the learning rate is {rates[-1]:.4g} now.'
        )


def _constants(state: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in state.items() if key not in _PROGRESS}


def _schedule_changes(now: Sequence[Mapping[str, Any]], before: Any) -> list[str]:
    before = list(before)
    if len(now) != len(before):
        return [f'param_scheduler has {len(now)} schedules, before {len(before)}']
    found = []
    for number, (one, other) in enumerate(zip(now, before, strict=True)):
        keys = [key for key in one if one[key] != other.get(key) and key != 'base_values']
        found += [f'param_scheduler.{number}.{key}={one[key]}, before {other.get(key)}' for key in keys]
    return found


def _option_changes(
    now: Sequence[Mapping[str, Any]], before: Sequence[Mapping[str, Any]], scheduled: set[str]
) -> list[str]:
    """Name the options of the optimizer that are other than saved; of a scheduled one its initial value counts."""
    found: dict[str, str] = {}
    for one, other in zip(now, before, strict=False):
        for key in other.keys() & one.keys() - scheduled - {'params'}:
            if one[key] != other[key]:
                found.setdefault(key, f'{key.removeprefix("initial_")}={one[key]}, before {other[key]}')
    return sorted(found.values())


def _run_to(runner: Runner, schedules: Sequence[Any], iterations: int) -> None:
    """Run new schedules up to a step, in the order in which a training runs them."""
    plateau = [type(schedule).__name__ for schedule in schedules if getattr(schedule, 'need_val_args', False)]
    if plateau:
        raise UserError(
            f'{plateau[0]} depends on the results so far, so a changed param_scheduler has no place to go on from: '
            'take the schedule back, or start from the weights with load_from.'
        )
    loop: Any = runner.train_loop
    epoch = len(loop.dataloader) if isinstance(loop, EpochBasedTrainLoop) else None
    with warnings.catch_warnings():
        # mmengine's schedules warn where they run without their optimizer.
        warnings.simplefilter('ignore')
        for step in range(1, iterations + 1):
            for schedule in schedules:
                if not schedule.by_epoch:
                    schedule.step()
            if epoch and step % epoch == 0:
                for schedule in schedules:
                    if schedule.by_epoch:
                        schedule.step()
