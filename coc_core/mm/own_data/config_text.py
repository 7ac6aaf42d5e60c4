"""What the configs of all tasks have in common, as text: how they begin and how they train."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from pprint import pformat
from textwrap import fill
from typing import Any

from mmengine.config import Config

from coc_core.files import project_folder
from coc_core.mm.own_data.plan import DataRequest
from coc_core.mm.own_data.starting import Start

Entries = dict[str, Any]
"""The entries of a dict in a config by name, as code or as entries again."""

_WIDTH = 117
_ENDLESS = 10**6
# Twice the rate of a fine-tuning: nothing learned can be lost.
_SCRATCH_RATE = 2
_CHECKS = 20


def base_path(name: str) -> Path:
    """Return a base config."""
    return project_folder() / 'configs' / '_base_' / name


def head(
    request: DataRequest,
    base: str,
    summary: str,
    variables: Mapping[str, tuple[Any, str]],
    imports: str = 'import coc_core',
) -> str:
    """Return the beginning of a config.

    Args:
        request: What the user asks for.
        base: The file name of the base config.
        summary: What was found, in one line.
        variables: Values that the rest computes with, and a comment on each, by name.
        imports: What else it imports.
    """
    # A link in the way would lead `..` elsewhere.
    inherited = Path(os.path.relpath(base_path(base).resolve(), request.out.parent.resolve())).as_posix()
    lines = [
        f'"""{fill(_quoted(summary), _WIDTH)}',
        '',
        'Written by tools/new_config.py; every line may be changed. Entries are computed of the variables when this',
        'file is read, so change those here; the length has an entry too: --cfg-options train_cfg.max_epochs=3',
        '',
        f'python tools/train.py {_quoted(shell_word(request.out))}',
        '"""',
        '',
        f'_base_ = {inherited if inherited.startswith(".") else f"./{inherited}"!r}',
        *([imports] if imports else []),
        'from coc_core.mm.own_data.resizing import resized',
        '',
    ]
    for name, (value, comment) in variables.items():
        lines.append(f'{name} = {literal(value, len(name) + 3)}{f"  # {comment}" if comment else ""}')
    return '\n'.join(lines) + '\n'


def pipelines(size: str, names: Sequence[str] = ('train', 'test')) -> list[str]:
    """Return lines that make the base's pipelines ones for another size, by the name of its variable."""
    return [f'{name}_pipeline = resized(_base_.{name}_pipeline, _base_.{size}, {size})' for name in names]


def dataset(phase: str, own: Entries) -> Entries:
    """Return the entries of a phase's data set: its own, and those of every task."""
    return {
        **own,
        # A tuple: mmdet's confusion_matrix.py adds the background to it.
        'metainfo': 'dict(classes=tuple(classes))',
        'pipeline': f'{"train" if phase == "train" else "test"}_pipeline',
    }


def loader(phase: str, entries: Entries, workers: int, *, whole_batches: bool = True) -> str:
    """Return the assignment of a phase's data loader.

    Args:
        phase: Out of train, val, test.
        entries: Its data set.
        workers: Processes that load data.
        whole_batches: Whether an evaluation takes batches too; images of many sizes come one by one.
    """
    batch = {'batch_size': 'batch_size'} if whole_batches or phase == 'train' else {}
    return assigned(f'{phase}_dataloader', {**batch, 'num_workers': str(workers), 'dataset': entries})


def training(base: Config, start: Start, *, decayed: bool) -> str:
    """Return how a config trains: the rate by the batch, the length, and how often it is measured and saved.

    Args:
        base: The base config.
        start: What the training begins with.
        decayed: Whether the base lets early layers learn more slowly.
    """
    rate = base.optim_wrapper.optimizer.lr * (1 if start.pretrained else _SCRATCH_RATE)
    optimizer: Entries = {'optimizer': {'lr': f'{rate:g} * (batch_size / {base.auto_scale_lr.base_batch_size}) ** 0.5'}}
    if decayed and not start.pretrained:
        optimizer['paramwise_cfg'] = {'layer_decay_rate': '1.0'}
    return f"""\
{start.load_from_text}{assigned('optim_wrapper', optimizer)}
auto_scale_lr = dict(base_batch_size=batch_size)
interval = max(1, epochs // {_CHECKS})  # epochs from one validation and checkpoint to the next
train_cfg = dict(max_epochs=epochs, val_interval=interval)
default_hooks = dict(checkpoint=dict(interval=interval))
randomness = dict(seed=0)
"""


def assigned(name: str, entries: Entries) -> str:
    """Return an assignment of a dict, on several lines where one is too long."""
    return f'{name} = {_called(entries, 0, len(name) + 3)}'


def _called(value: Any, indent: int, before: int) -> str:
    """Return code, a dict of entries, or a list of them; what precedes it in its line decides whether that holds it."""
    if isinstance(value, str):
        return value
    named = isinstance(value, Mapping)
    first, last = ('dict(', ')') if named else ('[', ']')
    items = [(f'{key}=', item) for key, item in value.items()] if named else [('', item) for item in value]
    line = first + ', '.join(key + _called(item, 0, -_ENDLESS) for key, item in items) + last
    if indent + before + len(line) <= _WIDTH:
        return line
    inner = indent + 4
    lines = [f'{" " * inner}{key}{_called(item, inner, len(key) + 1)},\n' for key, item in items]
    return f'{first}\n{"".join(lines)}{" " * indent}{last}'


def literal(value: Any, indent: int = 0) -> str:
    """Return a value as Python, on several lines where one is too long."""
    text = pformat(value, width=_WIDTH - 2 - indent, compact=True, sort_dicts=False)
    return text.replace('\n', '\n' + ' ' * indent)


def path_text(path: Path) -> str:
    """Return a path as a config has it."""
    return path.as_posix()


def shell_word(path: Path) -> str:
    """Return a path as a shell reads it as one word."""
    from shlex import quote

    return quote(path_text(path))


def counted(classes: Sequence[str], most: int = 5) -> str:
    """Return the number of classes and the first names."""
    names = ', '.join(classes[:most]) + (', ...' if len(classes) > most else '')
    return f'{len(classes)} classes ({names})'


def _quoted(text: str) -> str:
    """Return text as it can stand in a docstring."""
    return text.replace('\\', '\\\\').replace('"""', '"\\""')
