"""What a model computes otherwise than in the training of its weights, where neither names nor shapes tell."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import nn

from coc_core.checkpoints.origins import Source
from coc_core.checkpoints.origins.records import STOCK_BACKBONE, last_name
from coc_core.errors import UserError
from coc_core.model import ContextCluster
from coc_core.variants import CoCConfig, get_config

if TYPE_CHECKING:
    from coc_core.checkpoints.loading import Report

_NUMBERS = ('heads', 'head_dim', 'center_grid', 'region_grid')


def differences(trunk: ContextCluster, source: Source) -> tuple[str, ...]:
    """Return what differs between a model and the config of the training that a file records, one thing each.

    Args:
        trunk: The model.
        source: What the file holds.
    """
    trained = source.backbone
    if not trained:
        return ()
    found = list(other_backbone(trunk, source))
    config = _config(trained)
    for name in _NUMBERS if config else ():
        theirs, mine = getattr(config, name), getattr(trunk.config, name)
        if theirs != mine:
            found.append(_sentence(name, theirs, mine))
    mixer = trained.get('mixer')
    if source.mixer not in (None, *trunk.mixer_names):
        found.append(f'by the mixer {source.mixer} where this model has {" or ".join(sorted(trunk.mixer_names))}')
    else:
        theirs, mine = dict(mixer) if isinstance(mixer, Mapping) else {}, _plain(trunk.mixer_arguments)
        found += [
            _sentence(f'mixer.{name}', theirs.get(name, _DEFAULT), mine.get(name, _DEFAULT))
            for name in sorted({*theirs, *mine} - {'type', 'impl'})
            if theirs.get(name, _DEFAULT) != mine.get(name, _DEFAULT)
        ]
    return tuple(found)


def other_backbone(trunk: nn.Module, source: Source) -> tuple[str, ...]:
    """Return that a file records another class of backbone than a model's, where it does."""
    theirs, mine = last_name(source.backbone.get('type')), type(trunk).__name__
    if not source.backbone or _REGISTERED.get(theirs, theirs) == _REGISTERED.get(mine, mine):
        return ()
    return (f'by the backbone {theirs} where this model has {mine}',)


def tell_differences(report: Report) -> None:
    """Warn of what a model computes otherwise, where a report is not printed."""
    if report.otherwise:
        logging.getLogger(__name__).warning('%s was trained %s.', report.name, '; '.join(report.otherwise))


class _Default:
    def __repr__(self) -> str:
        return 'the default'


_DEFAULT = _Default()
# The class that configs know as ContextCluster.
_REGISTERED = {'ContextClusterBackbone': STOCK_BACKBONE}


def _sentence(name: str, theirs: Any, mine: Any) -> str:
    return f'with {name}={theirs!r} where this model has {mine!r}'


def _config(trained: Mapping[str, Any]) -> CoCConfig | None:
    try:
        config = get_config(trained['arch'])
        return config.override(**{name: trained[name] for name in _NUMBERS if name in trained})
    except (KeyError, TypeError, UserError):
        return None


def _plain(value: Any) -> Any:
    """Return a value of a config as it is read from its text."""
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    return tuple(map(_plain, value)) if isinstance(value, (list, tuple)) else value
