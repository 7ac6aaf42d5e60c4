"""What is wrong with the data that a config names: found before training, or listed by ``check_data.py``."""

from __future__ import annotations

import os.path as osp
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from difflib import get_close_matches
from itertools import zip_longest
from pathlib import Path
from typing import Any

from mmengine.config import Config

from coc_core.errors import UserError
from coc_core.mm.data_checks.class_counts import count_problems, model_classes, rank_problems
from coc_core.mm.data_checks.inspection import (
    Inspection,
    class_names,
    dataset_class,
    datasets_of,
    evaluators_of,
    innermost_datasets,
    is_remote,
    path_below,
    shown,
)
from coc_core.mm.data_checks.problems import Problem
from coc_core.mm.task import Task, task_of

_MADE_BY = {
    'data/digits': 'make_digits_data.py',
    'data/stamps': 'make_digits_data.py --source stamps --out data/stamps',
    'data/imagenet-shards': 'shard_imagenet.py',
}


def check_data(cfg: Config, phases: Sequence[str], *, contents: bool = True) -> None:
    """Check the data of these phases (train, val, test) as far as that takes no opening of images.

    Args:
        cfg: The config.
        phases: The phases that will run.
        contents: Read annotation files and list folders too, and warn, which one process of a run does for all.

    Raises:
        UserError: A folder or file is missing, classes of the data sets and of the model differ, or annotations are
            wrong.
    """
    for phase in phases:
        for dataset in datasets_of(cfg, phase):
            for path in _paths(dataset):
                if not osp.exists(path):
                    raise UserError(_missing_data(phase, path))
        for problem in config_problems(cfg, phase):
            if problem.level == 'error':
                raise UserError(str(problem))
            if contents:
                print(f'{problem.level}: {problem}', file=sys.stderr, flush=True)
    for inspection in inspections(cfg, phases, files=False) if contents else ():
        errors = [problem for problem in inspection.problems if problem.level == 'error']
        if errors:
            more = f' There are {len(errors) - 1} more problems.' if len(errors) > 1 else ''
            raise UserError(
                f'{errors[0]}{more} tools/dataset_converters/check_data.py with this config lists everything.'
            )
        for level in ('left out', 'warning'):
            told = [problem for problem in inspection.problems if problem.level == level]
            if told:
                more = f' ({len(told) - 1} more of this kind)' if len(told) > 1 else ''
                print(f'{inspection.name}: {level}: {told[0]}{more}', file=sys.stderr, flush=True)


def config_problems(cfg: Config, phase: str) -> Iterator[Problem]:
    """Yield what of a config would have the data of a phase learned or measured in another way than it says."""
    task = task_of(cfg)
    yield from rank_problems(cfg, task, phase)
    yield from _truth_problems(cfg, phase)
    yield from _name_problems(cfg, phase)
    yield from task.config_problems(cfg, phase)


def _paths(dataset: Mapping[str, Any]) -> Iterator[str]:
    """Return the local files and folders that a dataset names, the root first."""
    if is_remote(dataset):
        return
    root = dataset.get('data_root') or ''
    prefix = dataset.get('data_prefix')
    below = [*prefix.values()] if isinstance(prefix, Mapping) else [prefix]
    for path in (root, dataset.get('ann_file'), *below):
        if isinstance(path, str) and path and '://' not in path:
            yield osp.expanduser(path if path == root else osp.join(root, path))


def _truth_problems(cfg: Config, phase: str) -> Iterator[Problem]:
    """Yield the annotation file of an evaluator that is another than its data's: ids that fit would be scored."""
    data = innermost_datasets(cfg, phase)
    # Of several data sets one file may hold the truth of all.
    if phase == 'train' or len(data) != 1 or not data[0].get('ann_file') or is_remote(data[0]):
        return
    read = path_below(data[0], data[0]['ann_file'])
    for evaluator in evaluators_of(cfg, phase):
        truth = evaluator.get('ann_file')
        if isinstance(truth, str) and '://' not in truth and osp.realpath(osp.expanduser(truth)) != osp.realpath(read):
            what = f'but the {phase} data is of {read}: a model must be measured by the annotations of its data'
            yield Problem(f'{phase}_evaluator.ann_file={truth},', f'{what}, so set both')


def _name_problems(cfg: Config, phase: str) -> Iterator[Problem]:
    """Yield the entry of a metainfo that is nearly called ``classes``: it may hold anything, and nobody reads that."""
    for dataset in datasets_of(cfg, phase):
        metainfo = dataset.get('metainfo') or {}
        near = [key for key in metainfo if get_close_matches(str(key).casefold(), ['classes'], cutoff=0.8)]
        if near and 'classes' not in metainfo:
            yield Problem(f'The metainfo of the {phase} data', f'has {near[0]!r}, which nobody reads: call it classes')


def _missing_data(phase: str, path: str) -> str:
    made = next((command for place, command in _MADE_BY.items() if place in path.replace(osp.sep, '/')), None)
    remedy = (
        f'see docs/own-data.md on how to lay out the data, or name another place with '
        f'`--cfg-options {phase}_dataloader.dataset.data_root=...`'
        if made is None
        else f'make it with `python tools/dataset_converters/{made}`'
    )
    return f'The {phase} data {path} does not exist: {remedy}.'


def inspections(cfg: Config, phases: Sequence[str], *, files: bool) -> Iterator[Inspection]:
    """Yield the checks of each data set of these phases; one that serves two phases comes once.

    Args:
        cfg: The config.
        phases: Out of train, val, test.
        files: Whether the samples' files will be opened, which a data set without annotations is all about.
    """
    task = task_of(cfg)
    seen: list[Mapping[str, Any]] = []
    first: dict[str, tuple[str, list[str]]] = {}
    trained: set[str | bytes] = set()
    for phase in phases:
        data = innermost_datasets(cfg, phase)
        for dataset in data:
            if dataset in seen:
                continue
            seen.append(dataset)
            name = f'{phase} data in {dataset.get("data_root") or dataset.get("ann_file") or "."}'
            inspection = Inspection(
                name, training=phase == 'train', alone=len(data) == 1, num_classes=model_classes(cfg, task)
            )
            if not is_remote(dataset):
                task.inspect(inspection, dataset, files=files)
            given, own = _named_classes(task, dataset)
            classes = given or inspection.classes or own
            inspection.problems.extend(count_problems(cfg, task, f'{phase} data', classes) if classes else ())
            for source, names in (('files', inspection.classes), ('metainfo', given)):
                if names:
                    other, expected = first.setdefault(source, (name, names))
                    inspection.problems.extend(_difference(name, names, other, expected))
            if phase == 'train':
                trained.update(_samples(inspection))
            else:
                inspection.problems.extend(_trained_on(inspection, trained))
            yield inspection


def _named_classes(task: Task, dataset: Mapping[str, Any]) -> tuple[list[str] | None, list[str] | None]:
    """Return the class names that a config gives its data, and those that the data set's class has itself."""
    given = (dataset.get('metainfo') or {}).get('classes') or dataset.get('classes')
    own = getattr(dataset_class(task.scope, dataset), 'METAINFO', {})
    # Of panoptic data some parts of a model count things alone, and others things and stuff.
    return class_names(given), None if 'thing_classes' in own else class_names(own.get('classes'))


def _difference(name: str, classes: Sequence[str], other: str, expected: Sequence[str]) -> Iterator[Problem]:
    """Yield the problem of two data sets of a config whose labels stand for different classes."""
    if list(classes) != list(expected):
        label = next(i for i, pair in enumerate(zip_longest(classes, expected)) if pair[0] != pair[1])
        has = f'has the classes {shown(classes, 10)}, but the {other} has {shown(expected, 10)}'
        yield Problem(name, f'{has}: from label {label} on they differ, and a model needs the same classes in both')


def _samples(inspection: Inspection) -> dict[str | bytes, str | Path]:
    """Return what tells the samples of a data set from others, and what messages call them."""
    return {**{osp.abspath(file): file for file in inspection.files}, **inspection.contents}


def _trained_on(inspection: Inspection, trained: Collection[str | bytes]) -> Iterator[Problem]:
    """Yield the problem of a data set that a model is tested with and trained on."""
    shared = [name for sample, name in _samples(inspection).items() if sample in trained]
    if shared:
        more = f' and {len(shared) - 1} more' if len(shared) > 1 else ''
        what = f'has {shared[0]}{more} in common with the training data: what was trained on does not test a model'
        yield Problem(inspection.name, what, 'warning')
