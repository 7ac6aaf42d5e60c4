"""Tells by its content where a checkpoint comes from, and brings its weights into one form."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from coc_core.checkpoints.official import is_first_generation, translate, without_wrapper
from coc_core.checkpoints.reading import CheckpointError

_CONTAINERS = ('state_dict', 'model', 'net')
_AVERAGES = ('state_dict_ema', 'model_ema')
# What every block has, whatever its mixer is.
_IMAGE = re.compile(r'^((?:.*\.)?)stages\.\d+\.blocks\.\d+\.gamma[12]$')
_PUBLISHED_IMAGE = re.compile(r'^((?:.*\.)?)network\.\d+\.\d+\.token_mixer\.(?:f|v|fc1|fc_v|sim_alpha|sim_beta)\b')
_POINTS = re.compile(r'^((?:.*\.)?)backbone\.stages\.\d+\.embedding\.')
_PUBLISHED_POINTS = re.compile(r'^((?:.*\.)?)pre_blocks_list\.\d+\.')
_TASKS = (
    ('detection', re.compile(r'^(rpn_head|roi_head|bbox_head)\.')),
    ('segmentation', re.compile(r'^(decode_head|auxiliary_head)\.')),
)
STOCK_MIXER = 'ClusterMixer'
FIRST_GENERATION = '1x1 convolutions'
_CONVERTED = ', converted'
_CLASSIFIER_HEAD = re.compile(r'^head\.fc\.')


@dataclass(frozen=True)
class Denominator:
    """The denominator that weights were trained with.

    Attributes:
        name: Its name in `coc_core.ops.cluster`, or None where the file does not tell.
        evidence: What tells it.
        first_generation: Whether the MLPs were published as convolutions.
    """

    name: str | None = None
    evidence: str = ''
    first_generation: bool = False


@dataclass(frozen=True)
class Source:
    """What a checkpoint holds.

    Attributes:
        origin: In words, for messages.
        published: Whether the names were the published code's.
        task: ``'classification'``, ``'detection'``, ``'segmentation'``, ``'backbone'``, ``'points'`` or ``'other'``.
        weights: Tensors by this project's names: an image model's trunk and ``norm`` and ``head`` of a classifier as
            in `coc_core.create_model`, other parts (``neck``, ``decode_head``) as their library calls them.
        unknown: What the checkpoint holds among its weights that is no known name, by its own name.
        translated: What was changed on the way, in words.
        denominator: The one that the weights were trained with.
        mixer: The mixer that they were trained with: a name, or None where the file does not tell.
    """

    origin: str
    published: bool
    task: str
    weights: dict[str, Tensor]
    unknown: dict[str, Any]
    translated: tuple[str, ...] = ()
    denominator: Denominator = Denominator()
    mixer: str | None = None


def recognise(checkpoint: Any, name: str, *, ema: bool = False, prefix: str | None = None) -> Source:
    """Find the weights in a checkpoint and name their origin.

    Args:
        checkpoint: What was read from a file.
        name: What messages call it.
        ema: Take the averaged weights that stand beside the others (``state_dict_ema``).
        prefix: What precedes the backbone's names; by default it is seen from them.

    Raises:
        CheckpointError: There are no weights, or none under the prefix.
    """
    found = _unwrap(checkpoint, name, ema)
    weights = {k: v for k, v in found.items() if isinstance(v, Tensor)}
    others = {k: v for k, v in found.items() if not isinstance(v, Tensor)}
    bare = without_wrapper(weights)
    steps = ["the wrapper's prefix of all names dropped"] if bare is not weights else []
    kinds = {pattern: _prefixes(pattern, bare) for pattern in (_PUBLISHED_POINTS, _POINTS, _PUBLISHED_IMAGE, _IMAGE)}
    kind = max(kinds, key=lambda pattern: kinds[pattern].total())
    if not kinds[kind]:
        if prefix:
            raise CheckpointError(_none_under(prefix, name, bare))
        return Source('checkpoint without a Context Cluster', False, 'other', dict(bare), others, tuple(steps))
    recorded = _recorded_origin(checkpoint)
    if kind in (_PUBLISHED_POINTS, _POINTS):
        return _points(kind is _PUBLISHED_POINTS, bare, others, steps, recorded)
    published = kind is _PUBLISHED_IMAGE
    start = kinds[kind].most_common(1)[0][0] if prefix is None else prefix.rstrip('.') + '.' if prefix else ''
    if start not in kinds[kind]:
        raise CheckpointError(_none_under(start, name, bare))
    trunk = {k.removeprefix(start): v for k, v in bare.items() if k.startswith(start)}
    parts = {k: v for k, v in bare.items() if not k.startswith(start)}
    if start and prefix is None and not start.startswith('backbone.'):
        steps.append(f'prefix {start!r} dropped')
    source = _image(published, trunk, parts, others, steps, recorded, _recorded_denominator(checkpoint))
    return replace(source, mixer=STOCK_MIXER if published else _recorded_mixer(checkpoint))


def _unwrap(checkpoint: Any, name: str, ema: bool) -> Mapping[str, Any]:
    """The mapping that holds the weights."""
    if not isinstance(checkpoint, Mapping):
        raise CheckpointError(f'{name} holds no weights: it is a {type(checkpoint).__name__}, not a mapping.')
    averages = [key for key in _AVERAGES if isinstance(checkpoint.get(key), Mapping)]
    containers = [key for key in _CONTAINERS if isinstance(checkpoint.get(key), Mapping)]
    if ema and not averages:
        raise CheckpointError(f'{name} holds no averaged weights ({" or ".join(_AVERAGES)}): load it with ema=False.')
    places = averages if ema else [*containers, *averages]
    found = checkpoint[places[0]] if places else checkpoint
    if not any(isinstance(value, Tensor) for value in found.values()):
        raise CheckpointError(f'{name} holds no weights (neither a `state_dict` nor named tensors).')
    return {str(key): value for key, value in found.items()}


def _prefixes(pattern: re.Pattern[str], weights: Mapping[str, Tensor]) -> Counter[str]:
    matches = (pattern.match(key) for key in weights)
    return Counter(match[1] for match in matches if match)


def _none_under(prefix: str, name: str, weights: Mapping[str, Tensor]) -> str:
    first = ', '.join(list(weights)[:3])
    return f'{name} holds no Context Cluster weights under the prefix {prefix!r}: its first names are {first}.'


def _recorded_origin(checkpoint: Mapping[str, Any]) -> str | None:
    meta = checkpoint.get('meta')
    origin = meta.get('origin') if isinstance(meta, Mapping) else None
    return origin if not isinstance(origin, str) or origin.endswith(_CONVERTED) else origin + _CONVERTED


def _points(
    published: bool, weights: Mapping[str, Tensor], others: dict[str, Any], steps: list[str], recorded: str | None
) -> Source:
    if not published:
        return Source(
            recorded or 'point-cloud checkpoint of this project', False, 'points', dict(weights), others, tuple(steps)
        )
    translated, unknown = translate(weights)
    steps.append('published names; convolutions of kernel 1 to matrices')
    left = {**{key: weights[key] for key in unknown}, **others}
    return Source('published point-cloud checkpoint', True, 'points', translated, left, tuple(steps))


def _image(
    published: bool,
    trunk: Mapping[str, Tensor],
    parts: dict[str, Tensor],
    others: dict[str, Any],
    steps: list[str],
    recorded: str | None,
    denominator: Denominator,
) -> Source:
    unknown: dict[str, Any] = dict(others)
    weights = dict(trunk)
    if published:
        weights, names = translate(trunk)
        unknown.update((key, trunk[key]) for key in names)
        steps.append('published names; 1x1 convolutions to matrices; f and v joined')
        if is_first_generation(trunk):
            steps.append('4-D MLP weights to matrices')
            denominator = Denominator(
                'count', 'its MLP weights are 4-D, as in the first files of March 2023 alone', True
            )
    task = next((task for task, head in _TASKS if any(head.match(key) for key in parts)), None)
    if task is None and any(_CLASSIFIER_HEAD.match(key) for key in parts):
        task = 'classification'
    for key, value in parts.items():
        name = _CLASSIFIER_HEAD.sub('head.', key) if task == 'classification' else key
        # A second tensor for a name, or one of the trunk's names outside of it, must not replace the first.
        if name in weights or name.startswith(('stem.', 'stages.', 'norm.', 'dense_norms.')):
            unknown[key] = value
        else:
            weights[name] = value
    if task is None:
        task = 'classification' if any(k.startswith(('norm.', 'head.')) for k in weights) else 'backbone'
    library = {'detection': ' of mmdet 2.x', 'segmentation': ' of mmseg 0.x'}.get(task, '')
    origin = f'published {task} checkpoint{library}' if published else f'{task} checkpoint of this project'
    return Source(recorded or origin, published, task, weights, unknown, tuple(steps), denominator)


def _recorded_denominator(checkpoint: Mapping[str, Any]) -> Denominator:
    """The denominator that a file of this project records, and where."""
    meta = checkpoint.get('meta')
    if not isinstance(meta, Mapping):
        return Denominator()
    if isinstance(meta.get('denominator'), str):
        return Denominator(meta['denominator'], 'the file records it', meta.get('mlp') == FIRST_GENERATION)
    config = _recorded_config(checkpoint)
    if config:
        named = re.search(r'denominator[\'"]?\s*[=:]\s*[\'"](\w+)[\'"]', config)
        return Denominator(named[1] if named else 'similarity', "the training's config in the file says so")
    return Denominator()


def _recorded_config(checkpoint: Mapping[str, Any]) -> str:
    """The config of the training that wrote the file, or '' where it holds none with a Context Cluster."""
    meta = checkpoint.get('meta')
    config = meta.get('cfg') if isinstance(meta, Mapping) else None
    return config if isinstance(config, str) and "type='ContextCluster'" in config.replace('"', "'") else ''


def _recorded_mixer(checkpoint: Mapping[str, Any]) -> str | None:
    """The name of the mixer in the config of the training that wrote the file."""
    config = _recorded_config(checkpoint)
    try:
        entries = [node for node in ast.walk(ast.parse(config)) if isinstance(node, ast.keyword)]
    except SyntaxError:
        return None
    for entry in entries:
        if entry.arg == 'mixer' and isinstance(entry.value, ast.Call):
            kinds = [ast.unparse(inner.value) for inner in entry.value.keywords if inner.arg == 'type']
            return kinds[0].strip('\'"').rpartition('.')[2] if kinds else None
    return STOCK_MIXER if config else None
