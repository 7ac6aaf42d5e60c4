"""What a model computes otherwise than in the training of its weights, where neither names nor shapes tell."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

from torch import nn

from coc_core.checkpoints.origins import Source
from coc_core.checkpoints.origins.records import STOCK_BACKBONE, last_name
from coc_core.errors import UserError


class KeepsArguments:
    """A module that keeps the arguments it is built with by keyword, those of a subclass among them.

    Attributes:
        arguments: Their values by name.
    """

    arguments: Mapping[str, Any]

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        """Make the object; ``__init__`` of a subclass may pass on what it likes."""
        made = super().__new__(cls)
        # A module takes no attributes yet.
        made.__dict__['arguments'] = kwargs
        return made


def differences(trunk: nn.Module, source: Source) -> tuple[str, ...]:
    """Return what differs between a model and the config of the training that a file records, one thing each.

    Args:
        trunk: The model's backbone.
        source: What the file holds.
    """
    if not source.backbone:
        return ()
    return (*_class(trunk, source), *_numbers(trunk, source), *_own_arguments(trunk, source), *_mixer(trunk, source))


class _Default:
    def __repr__(self) -> str:
        return 'the default'


_DEFAULT = _Default()
# The class that configs know as ContextCluster.
_REGISTERED = {'ContextClusterBackbone': STOCK_BACKBONE}


def _class(trunk: nn.Module, source: Source) -> Iterator[str]:
    theirs, mine = last_name(source.backbone.get('type')), type(trunk).__name__
    if _REGISTERED.get(theirs, theirs) != _REGISTERED.get(mine, mine):
        yield f'by the backbone {theirs} where this model has {mine}'


def _numbers(trunk: nn.Module, source: Source) -> Iterator[str]:
    """Compare the fields of the architecture that weights do not show."""
    mine, theirs = getattr(trunk, 'config', None), _config(source)
    if theirs is not None and isinstance(mine, type(theirs)):
        yield from _other_values({name: (getattr(theirs, name), getattr(mine, name)) for name in theirs.UNSEEN})


def _config(source: Source) -> Any:
    try:
        config = source.origin.variant(source.backbone['arch'])
        # Any of the other fields may be needed by these, such as the number of stages.
        known = {field.name for field in fields(config)} - {'impl'}
        return config.override(**{name: value for name, value in source.backbone.items() if name in known})
    except (KeyError, TypeError, UserError):
        return None


def _own_arguments(trunk: nn.Module, source: Source) -> Iterator[str]:
    """Compare the arguments of a subclass of the user's that the project's class does not take."""
    bases: list[Any] = [kind for kind in type(trunk).__mro__ if 'override_names' in vars(kind)]
    if not isinstance(trunk, KeepsArguments) or not bases:
        return
    stock = {'type', '_scope_', *inspect.signature(bases[-1]).parameters, *bases[-1].override_names}
    mine, theirs = _plain(trunk.arguments), source.backbone
    names = sorted({*mine, *theirs} - stock)
    yield from _other_values({name: (theirs.get(name, _DEFAULT), mine.get(name, _DEFAULT)) for name in names})


def _mixer(trunk: nn.Module, source: Source) -> Iterator[str]:
    names = getattr(trunk, 'mixer_names', None)
    if names is None:
        return
    if source.mixer not in (None, *names):
        yield f'by the mixer {source.mixer} where this model has {" or ".join(sorted(names))}'
        return
    mixer = source.backbone.get('mixer')
    theirs, mine = dict(mixer) if isinstance(mixer, Mapping) else {}, _plain(trunk.mixer_arguments)
    told = sorted({*theirs, *mine} - {'type', 'impl'})
    yield from _other_values({f'mixer.{n}': (theirs.get(n, _DEFAULT), mine.get(n, _DEFAULT)) for n in told})


def _other_values(values: Mapping[str, tuple[Any, Any]]) -> Iterator[str]:
    for name, (theirs, mine) in values.items():
        if theirs != mine:
            yield f'with {name}={theirs!r} where this model has {mine!r}'


def _plain(value: Any) -> Any:
    """Return a value of a config as it is read from its text."""
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    return tuple(map(_plain, value)) if isinstance(value, (list, tuple)) else value
