"""What can be said about a config before anything is built: keys that would change nothing."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import mmengine.registry
from mmengine.config import Config
from mmengine.config.config import DELETE_KEY
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from mmengine.registry import Registry
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, Runner, TestLoop, ValLoop
from torch.utils.data import DataLoader

from coc_core.errors import UserError, did_you_mean

_TOP_LEVEL = frozenset(
    {
        'auto_scale_lr',
        'compile',
        'find_unused_parameters',
        'runner_type',
        'sync_bn',
        'tta_model',
        'tta_pipeline',
        'vis_backends',
    }
)
_FREE = frozenset({'backend_args', 'custom_keys', 'default_hooks', 'dist_cfg', 'metainfo', 'mp_cfg'})
_LOADER = frozenset(inspect.signature(DataLoader.__init__).parameters) - {'self'}
PARAMWISE = frozenset(
    {
        'custom_keys',
        'bias_lr_mult',
        'bias_decay_mult',
        'norm_decay_mult',
        'flat_decay_mult',
        'dwconv_decay_mult',
        'dcn_offset_lr_mult',
        'bypass_duplicate',
    }
)
"""Entries of ``paramwise_cfg`` that mmengine's own constructor of optimizers knows."""
_KNOWN_CHILDREN = {
    'auto_scale_lr': frozenset({'enable', 'base_batch_size'}),
    'env_cfg': frozenset({'cudnn_benchmark', 'mp_cfg', 'dist_cfg', 'resource_limit'}),
    'randomness': frozenset({'seed', 'diff_rank_seed', 'deterministic'}),
    'paramwise_cfg': PARAMWISE,
    'train_dataloader': _LOADER,
    'val_dataloader': _LOADER,
    'test_dataloader': _LOADER,
}
_DEFAULT_TYPES = {
    'train_cfg': (EpochBasedTrainLoop, IterBasedTrainLoop),
    'val_cfg': (ValLoop,),
    'test_cfg': (TestLoop,),
    'optim_wrapper': (OptimWrapper, AmpOptimWrapper),
}
_BUILDER_KEYS = frozenset({'type', '_scope_', 'constructor', 'paramwise_cfg'})


def check_option_keys(cfg: Config, options: Mapping[str, Any]) -> None:
    """Refuse keys of ``--cfg-options`` that would change nothing; mmengine adds them without a word.

    A new key passes where the constructor behind the parent's `type` takes it, and where mmengine itself knows it.

    Raises:
        UserError: A key leads nowhere, where the message has the nearest names; or one changes an entry of another.
    """
    for dotted in options:
        _check_key(cfg, dotted)
        inner = next((other for other in options if other.startswith(f'{dotted}.')), None)
        if inner is not None:
            raise UserError(f'--cfg-options {dotted} and {inner}: the second is in the first, give only one of them.')


def check_value_keys(cfg: Config, dotted: str, value: Any, entry: Any) -> None:
    """Refuse keys in a dict that is given for a dict, as `check_option_keys` does; other values pass.

    Raises:
        UserError: A key of the dict would change nothing.
    """
    if not isinstance(value, Mapping) or not isinstance(entry, Mapping) or value.get(DELETE_KEY):
        return
    for name, item in value.items():
        if name in entry:
            check_value_keys(cfg, f'{dotted}.{name}', item, entry[name])
        else:
            _check_new(f'{dotted}.{name}', dotted, entry, name, _accepted(cfg, dotted, {**entry, **value}))


def _check_key(cfg: Config, dotted: str) -> None:
    node: Any = cfg._cfg_dict
    parent = ''
    variable = dotted.split('.')[0]
    if variable in node and variable not in _accepted(cfg, '', node):  # type: ignore[operator]
        raise UserError(
            f'--cfg-options {dotted}: {variable} is a variable of the config, from which its entries were computed '
            'when it was read, and would change nothing now: change it in the config, or give the entries themselves.'
        )
    for part in dotted.split('.'):
        if isinstance(node, (list, tuple)):
            if not part.isdecimal() or int(part) >= len(node):
                raise UserError(f'--cfg-options {dotted}: {parent} has {len(node)} items, and no item {part!r}.')
            node = node[int(part)]
        elif isinstance(node, Mapping):
            if part not in node:
                _check_new(dotted, parent, node, part, _accepted(cfg, parent, node))
                return
            node = node[part]
        else:
            raise UserError(f'--cfg-options {dotted}: {parent} is {node!r} and has no key {part!r}.')
        parent = f'{parent}.{part}' if parent else part


def _check_new(dotted: str, parent: str, node: Mapping[str, Any], name: Any, accepted: frozenset[str] | None) -> None:
    if accepted is not None and name not in accepted:
        near = did_you_mean(str(name), sorted(map(str, {*node, *accepted})))
        raise UserError(f'--cfg-options {dotted}: {parent or "the config"} has no key {name!r}.{near}')


def _accepted(cfg: Config, parent: str, node: Mapping[str, Any]) -> frozenset[str] | None:
    """Return the keys that a dict may newly get; None where any will do."""
    if not parent:
        return frozenset(inspect.signature(Runner.__init__).parameters) - {'self', 'cfg'} | _TOP_LEVEL
    name = parent.rsplit('.', 1)[-1]
    if name in _FREE:
        return None
    if 'type' in node:
        target = _resolve(node['type'], cfg.get('default_scope', 'mmengine'))
        return None if target is None else _argument_names(target) | _BUILDER_KEYS
    if name in _KNOWN_CHILDREN:
        return _KNOWN_CHILDREN[name]
    if parent in _DEFAULT_TYPES:
        return frozenset().union(*map(_argument_names, _DEFAULT_TYPES[parent])) | _BUILDER_KEYS
    return frozenset()


def _resolve(kind: Any, scope: str) -> Any:
    """Return what a config's `type` stands for, or None where no registry knows it."""
    if not isinstance(kind, str):
        return kind
    for root in vars(mmengine.registry).values():
        if isinstance(root, Registry):
            with root.switch_scope_and_registry(scope) as registry:
                found = registry.get(kind)
            if found is not None:
                return found
    return None


def _argument_names(target: Any) -> frozenset[str]:
    """Return the argument names of a function, or of a class together with those it passes on to its bases."""
    names: set[str] = set(getattr(target, 'override_names', ()))
    for level in inspect.getmro(target) if inspect.isclass(target) else [target]:
        try:
            parameters = inspect.signature(level).parameters.values()
        except (TypeError, ValueError):
            continue
        names |= {item.name for item in parameters if item.kind not in (item.VAR_POSITIONAL, item.VAR_KEYWORD)}
        if not any(item.kind is item.VAR_KEYWORD for item in parameters):
            break
    return frozenset(names)
