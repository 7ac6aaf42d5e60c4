"""How many classes a config's model and evaluation are made for, compared with how many the data has."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from mmengine.config import Config

from coc_core.mm.data_checks.inspection import shown
from coc_core.mm.data_checks.problems import Problem

if TYPE_CHECKING:
    from coc_core.mm.task import Task


class Entry(NamedTuple):
    """A key of a part of a config, and where the part is, as keys joined by dots."""

    part: Mapping[str, Any]
    key: str
    place: str


def count_problems(cfg: Config, task: Task, data: str, classes: Sequence[str]) -> Iterator[Problem]:
    """Yield the entries of a config's model that are made for other classes than its data has, and pitfalls among them.

    Args:
        cfg: The config.
        task: Its task, which knows what counts classes.
        data: What messages call the data.
        classes: The names of its classes.
    """
    for part, key, place in _entries(cfg, task):
        if pitfall := task.pitfall(part, key):
            yield Problem(f'{place}.{key}', pitfall, 'warning')
        needed = task.class_count(part, key, len(classes))
        value = part[key]
        data_has = f'but the {data} has {len(classes)} classes ({shown(classes)})'
        if needed is None:
            continue
        if isinstance(value, (list, tuple)) and len(value) != needed:
            background = ', the last for the background' if needed == len(classes) + 1 else ''
            yield Problem(f'{place}.{key}', f'has {len(value)} values, {data_has}: give {needed}{background}')
        # A weight that is one number is for all classes.
        elif isinstance(value, int) and value != needed and not key.endswith('_weight'):
            yield Problem(f'{place}.{key}={value},', f'{data_has}: set it to {needed}')


def model_classes(cfg: Config, task: Task) -> int | None:
    """Return the number of classes that a config's model has; None where the config does not say so."""
    counts = (part[key] for part, key, _ in _entries(cfg, task) if key == 'num_classes')
    return next((count for count in counts if isinstance(count, int)), None)


def rank_problems(cfg: Config, task: Task, phase: str) -> Iterator[Problem]:
    """Yield where a phase is to be measured by more best classes (``topk``) than the model has, which would stop it."""
    classes = model_classes(cfg, task)
    if phase == 'train':
        found = [entry for entry in _entries(cfg, task) if entry.part.get('cal_acc')]
    else:
        found = list(_below(cfg.get(f'{phase}_evaluator'), f'{phase}_evaluator', ()))
    for part, key, place in found:
        if key == 'topk' and classes is not None and isinstance(part[key], (int, list, tuple)):
            asked = [part[key]] if isinstance(part[key], int) else part[key]
            if max(asked, default=0) > classes:
                what = f'but the model has {classes} classes: take out what is above'
                yield Problem(f'{place}.topk={part[key]},', what)


def _entries(cfg: Config, task: Task) -> Iterator[Entry]:
    for place, part in task.counting_parts(cfg).items():
        yield from _below(part, place, task.counts_otherwise)


def _below(node: Any, place: str, left_out: Collection[str]) -> Iterator[Entry]:
    """Yield the entries of a part and of those in it, without those under these keys or of these types."""
    if isinstance(node, (list, tuple)):
        for i, item in enumerate(node):
            yield from _below(item, f'{place}.{i}', left_out)
    elif isinstance(node, Mapping) and node.get('type') not in left_out:
        for key, value in node.items():
            if key not in left_out:
                yield Entry(node, key, place)
                yield from _below(value, f'{place}.{key}', left_out)
