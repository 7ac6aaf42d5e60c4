"""What a file of this project records of its weights beside them."""

from __future__ import annotations

import ast
from collections.abc import Container, Mapping
from typing import Any

from coc_core.checkpoints.origins.base import Denominator, Source
from coc_core.variants import VARIANTS

STOCK_MIXER = 'ClusterMixer'
STOCK_BACKBONE = 'ContextCluster'
READ_CONFIG = 'read_cfg'
"""Where what reads checkpoints for mmengine, which would run a ``'cfg'``, leaves the config of the training."""
_FIRST_GENERATION = '1x1 convolutions'
_CONVERTED = ', converted'


def records_of(source: Source) -> dict[str, str]:
    """Return what a new file must say of its weights, as the functions below read it again."""
    meta = {'origin': source.title, 'task': source.task}
    if source.denominator.name:
        meta['denominator'] = source.denominator.name
    if source.denominator.first_generation:
        meta['mlp'] = _FIRST_GENERATION
    return meta


def recorded_title(meta: Mapping[str, Any]) -> str | None:
    """Return the origin in words that a converted file records."""
    title = meta.get('origin')
    if not isinstance(title, str):
        return None
    return title if title.endswith(_CONVERTED) else title + _CONVERTED


def recorded_denominator(meta: Mapping[str, Any]) -> Denominator:
    """Return the denominator that a file records, and where."""
    if isinstance(meta.get('denominator'), str):
        return Denominator(meta['denominator'], 'the file records it', meta.get('mlp') == _FIRST_GENERATION)
    backbone = recorded_backbone(meta)
    if backbone:
        named = backbone.get('denominator', 'similarity')
        return Denominator(str(named), "the training's config in the file says so")
    return Denominator()


def recorded_mixer(meta: Mapping[str, Any]) -> str | None:
    """Return the name of the mixer in the config of the training that wrote the file."""
    backbone = recorded_backbone(meta)
    mixer = backbone.get('mixer')
    if not isinstance(mixer, dict):
        return STOCK_MIXER if backbone else None
    return last_name(mixer['type']) if 'type' in mixer else None


def recorded_backbone(meta: Mapping[str, Any], variants: Container[str] = VARIANTS.keys()) -> dict[str, Any]:
    """Return the backbone in the config of the training that wrote the file, or {} where that has none of ``variants``.

    The config is a program of whoever wrote the file: it is read, and never run.
    """
    config = _recorded_config(meta)
    try:
        nodes = list(ast.walk(ast.parse(config)))
    except SyntaxError:
        return {}
    named = [node.value for node in nodes if isinstance(node, ast.keyword) and node.arg == 'backbone']
    named += [
        node.value for node in nodes if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == 'backbone'
    ]
    for found in map(_value, named):
        if isinstance(found, dict) and (last_name(found.get('type')) == STOCK_BACKBONE or _is_variant(found, variants)):
            return found
    return {}


def last_name(kind: Any) -> str:
    """Return the name of a class as a registry and as Python may have it, without scope or module."""
    return str(kind).strip('\'"').rpartition('.')[2]


def _is_variant(backbone: Mapping[str, Any], variants: Container[str]) -> bool:
    # A subclass of the user's has a name of its own.
    arch = backbone.get('arch')
    return isinstance(arch, dict) or (isinstance(arch, str) and arch in variants)


def _value(node: ast.expr) -> Any:
    """Return what an expression of a config's text stands for; its text where that is no plain value."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == 'dict' and not node.args:
        return {entry.arg: _value(entry.value) for entry in node.keywords if entry.arg}
    if isinstance(node, (ast.List, ast.Tuple)):
        return tuple(map(_value, node.elts))
    try:
        return ast.literal_eval(node)
    except ValueError:
        return ast.unparse(node)


def _recorded_config(meta: Mapping[str, Any]) -> str:
    """Return the config of the training that wrote the file, or ''."""
    config = meta.get('cfg', meta.get(READ_CONFIG))
    return config if isinstance(config, str) else ''
