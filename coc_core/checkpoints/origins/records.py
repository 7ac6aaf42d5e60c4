"""What a file of this project records of its weights beside them."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from typing import Any

from coc_core.checkpoints.origins.base import Denominator, Source

STOCK_MIXER = 'ClusterMixer'
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
    config = _recorded_config(meta)
    if config:
        named = re.search(r'denominator[\'"]?\s*[=:]\s*[\'"](\w+)[\'"]', config)
        return Denominator(named[1] if named else 'similarity', "the training's config in the file says so")
    return Denominator()


def recorded_mixer(meta: Mapping[str, Any]) -> str | None:
    """Return the name of the mixer in the config of the training that wrote the file."""
    config = _recorded_config(meta)
    try:
        entries = [node for node in ast.walk(ast.parse(config)) if isinstance(node, ast.keyword)]
    except SyntaxError:
        return None
    for entry in entries:
        if entry.arg == 'mixer' and isinstance(entry.value, ast.Call):
            kinds = [ast.unparse(inner.value) for inner in entry.value.keywords if inner.arg == 'type']
            return kinds[0].strip('\'"').rpartition('.')[2] if kinds else None
    return STOCK_MIXER if config else None


def _recorded_config(meta: Mapping[str, Any]) -> str:
    """Return the config of the training that wrote the file, or '' where it holds none with a Context Cluster."""
    config = meta.get('cfg')
    return config if isinstance(config, str) and "type='ContextCluster'" in config.replace('"', "'") else ''
