"""Published Context Cluster weights in this project's names, and back."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

_WRAPPERS = ('module.', '_orig_mod.')

_IMAGE_RENAMES = (
    (r'^patch_embed\.proj\.', 'stem.'),
    (r'\.layer_scale_1$', '.gamma1'),
    (r'\.layer_scale_2$', '.gamma2'),
    (r'\.token_mixer\.', '.mixer.'),
    # The names that the layer has in the published point-cloud code.
    (r'\.mixer\.fc1\.', '.mixer.f.'),
    (r'\.mixer\.fc_v\.', '.mixer.v.'),
    (r'\.mixer\.fc2\.', '.mixer.proj.'),
)
_BLOCK = re.compile(r'^network\.(\d+)\.(\d+)\.(.+)$')
_DOWNSAMPLE = re.compile(r'^network\.(\d+)\.proj\.(weight|bias)$')
_DENSE_NORM = re.compile(r'^norm(\d+)\.(weight|bias)$')
_REST = re.compile(r'^(patch_embed\.proj|norm|head)\.(weight|bias)$')
_MATRIX = re.compile(r'\.(?:(?:token_)?mixer\.(?:f|v|proj|fc1|fc_v|fc2)|mlp\.fc[12])\.weight$')
_MLP = re.compile(r'\.mlp\.fc[12]\.weight$')
_HALF = re.compile(r'^(.+\.mixer\.)([fv])\.(weight|bias)$')
_JOINED = re.compile(r'^(.+\.mixer\.)points_values\.(weight|bias)$')

# The published name and ours; {} is the stage.
_POINT_NAMES = (
    ('embedding.net.0.', 'backbone.linear.'),
    ('embedding.net.1.', 'backbone.norm.'),
    ('local_grouper_list.{}.affine_alpha', 'backbone.stages.{}.embedding.scale'),
    ('local_grouper_list.{}.affine_beta', 'backbone.stages.{}.embedding.shift'),
    ('pre_blocks_list.{}.transfer.net.0.', 'backbone.stages.{}.embedding.linear.'),
    ('pre_blocks_list.{}.transfer.net.1.', 'backbone.stages.{}.embedding.norm.'),
    ('pre_blocks_list.{}.operation.', 'backbone.stages.{}.pre_blocks.'),
    ('pos_blocks_list.{}.operation.', 'backbone.stages.{}.post_blocks.'),
    ('classifier.', 'head.layers.'),
)
_POINT_LAYERS = {
    'net1.0': 'linear1', 'net1.1': 'norm1', 'net2.0': 'linear2', 'net2.1': 'norm2',
    'fc1': 'points', 'fc_v': 'values', 'fc2': 'proj',
}  # fmt: skip
_POINT_LAYER = re.compile(rf'(_blocks\.\d+\.)({"|".join(map(re.escape, _POINT_LAYERS))})\.')


def from_official(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Translate a published model's state dict into this project's names and shapes.

    Works for classification and dense image models, of either generation, and for point-cloud classifiers. 1x1
    convolutions become matrices, and an image model's projections ``f`` and ``v`` (or ``fc1`` and ``fc_v``) become
    one. What data-parallel training and `torch.compile` put before every name is dropped.

    Args:
        state_dict: Official names to tensors; it is not changed.

    Returns:
        This project's names to tensors; those that need no reshaping share memory with the input.

    Raises:
        ValueError: A key is not one of the published model's, or ``f`` comes without ``v``.
    """
    state_dict = without_wrapper(state_dict)
    translated, unknown = translate(state_dict)
    for key in unknown:
        if _HALF.match(_rename_image(key) or ''):
            raise ValueError(f'{key!r} has no partner of its shape and type: f and v are the halves of one projection.')
        kind = 'point-cloud' if is_point_model(state_dict) else 'Context Cluster image'
        raise ValueError(f'{key!r} is not a key of a published {kind} model.')
    return translated


def without_wrapper(state_dict: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Return the weights without what data-parallel training and `torch.compile` put before every name."""
    for prefix in _WRAPPERS:
        if state_dict and all(key.startswith(prefix) for key in state_dict):
            return without_wrapper({key.removeprefix(prefix): value for key, value in state_dict.items()})
    return state_dict


def is_point_model(state_dict: Mapping[str, Tensor]) -> bool:
    """Whether published names are those of a point-cloud model."""
    return any(re.match(r'^(embedding\.net|local_grouper_list|pre_blocks_list)\.', k) for k in state_dict)


def is_first_generation(state_dict: Mapping[str, Tensor]) -> bool:
    """Whether a published image model's MLPs are convolutions, as in the first files of March 2023 alone."""
    return any(_MLP.search(key) and value.ndim == 4 for key, value in state_dict.items())


def translate(state_dict: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Translate what is known; return it with the published names that are not."""
    rename = _rename_point if is_point_model(state_dict) else _rename_image
    translated: dict[str, Tensor] = {}
    unknown: list[str] = []
    halves: dict[str, dict[str, tuple[str, Tensor]]] = {}
    for key, value in state_dict.items():
        name = rename(key)
        half = _HALF.match(name or '')
        parts = halves.setdefault(f'{half[1]}points_values.{half[3]}', {}) if half else {}
        if name is None or name in translated or (half and half[2] in parts):
            unknown.append(key)
        elif half is not None:
            parts[half[2]] = key, _as_matrix(key, value)
        elif rename is _rename_point:
            translated[name] = _as_point_weight(name, value)
        else:
            translated[name] = _as_matrix(key, value)
    for name, parts in halves.items():
        tensors = [parts[half][1] for half in 'fv' if half in parts]
        if len(tensors) == 2 and tensors[0].ndim and len({(half.shape, half.dtype) for half in tensors}) == 1:
            translated[name] = torch.cat(tensors)
        else:
            unknown += [key for key, _ in parts.values()]
    return translated, unknown


def _rename_image(key: str) -> str | None:
    # The published network is one list in which stages (even places) and downsampling layers (odd) alternate.
    block, downsample, dense_norm = _BLOCK.match(key), _DOWNSAMPLE.match(key), _DENSE_NORM.match(key)
    if downsample and int(downsample[1]) % 2 == 1:
        return f'stages.{(int(downsample[1]) + 1) // 2}.downsample.{downsample[2]}'
    if block and int(block[1]) % 2 == 0:
        key = f'stages.{int(block[1]) // 2}.blocks.{block[2]}.{block[3]}'
    elif dense_norm and int(dense_norm[1]) % 2 == 0:
        return f'dense_norms.{int(dense_norm[1]) // 2}.{dense_norm[2]}'
    elif not _REST.match(key):
        return None
    for pattern, name in _IMAGE_RENAMES:
        key = re.sub(pattern, name, key)
    return key


def _as_matrix(key: str, value: Tensor) -> Tensor:
    """A 1x1 convolution's weight [out, in, 1, 1] as [out, in]; anything else as it is."""
    return value.flatten(1) if _MATRIX.search(key) and value.shape[2:] == (1, 1) else value


def _renamed(key: str, names: Iterable[tuple[str, str]]) -> str | None:
    """The key with its beginning in the second form, where it has one in the first."""
    for old, new in names:
        found = re.match(re.escape(old).replace(r'\{\}', r'(\d+)'), key)
        if found:
            return new.format(*found.groups()) + key[found.end() :]
    return None


def _rename_point(key: str) -> str | None:
    name = _renamed(key, _POINT_NAMES)
    return name and _POINT_LAYER.sub(lambda match: f'{match[1]}{_POINT_LAYERS[match[2]]}.', name)


def _as_point_weight(name: str, value: Tensor) -> Tensor:
    """Convolutions of kernel 1 are published as [out, in, 1], the affine vectors of a group as [1, 1, 1, C]."""
    if name.endswith(('.scale', '.shift')) and value.shape[:-1] == (1, 1, 1):
        return value.flatten()
    return value.flatten(1) if value.ndim == 3 and value.shape[2] == 1 else value


def to_official(weights: Mapping[str, Tensor], *, first_generation: bool = False) -> dict[str, Tensor]:
    """Translate this project's names and shapes into the published code's: the inverse of `from_official`.

    Args:
        weights: Names of `coc_core.create_model`, of a dense backbone, or of `pointcloud.create_model`.
        first_generation: The MLPs as 1x1 convolutions, as the code of March 2023 has them.

    Returns:
        Official names to tensors that share memory with the input.

    Raises:
        ValueError: A key is not one of this project's models'.
    """
    if any(key.startswith('backbone.stages.0.embedding.') for key in weights):
        return {_official_point_name(key): _as_point_convolution(key, value) for key, value in weights.items()}
    official: dict[str, Tensor] = {}
    for key, value in weights.items():
        joined = _JOINED.match(key)
        parts = {key: value}
        if joined is not None:
            parts = dict(zip((f'{joined[1]}{half}.{joined[2]}' for half in 'fv'), value.chunk(2), strict=True))
        for name, part in parts.items():
            convolution = _MATRIX.search(name) and (first_generation or not _MLP.search(name))
            official[_official_image_name(name)] = part[..., None, None] if convolution else part
    return official


def _official_image_name(key: str) -> str:
    stage = re.match(r'^stages\.(\d+)\.(?:blocks\.(\d+)\.(.+)|downsample\.(weight|bias))$', key)
    norm = re.match(r'^dense_norms\.(\d+)\.(weight|bias)$', key)
    if stage and stage[3]:
        rest = stage[3].replace('gamma', 'layer_scale_').replace('mixer.', 'token_mixer.')
        return f'network.{2 * int(stage[1])}.{stage[2]}.{rest}'
    if stage:
        return f'network.{2 * int(stage[1]) - 1}.proj.{stage[4]}'
    if norm:
        return f'norm{2 * int(norm[1])}.{norm[2]}'
    if not re.match(r'^(stem|norm|head)\.(weight|bias)$', key):
        raise ValueError(f'{key!r} is not a key of a Context Cluster of this project.')
    return re.sub(r'^stem\.', 'patch_embed.proj.', key)


_OFFICIAL_LAYERS = {ours: official for official, ours in _POINT_LAYERS.items()}


def _official_point_name(key: str) -> str:
    name = _renamed(key, [(ours, official) for official, ours in _POINT_NAMES])
    if name is None:
        raise ValueError(f'{key!r} is not a key of a point-cloud model of this project.')
    layer = re.match(r'^(.+\.operation\.\d+\.)(\w+)\.(\w+)$', name)
    return f'{layer[1]}{_OFFICIAL_LAYERS.get(layer[2], layer[2])}.{layer[3]}' if layer else name


def _as_point_convolution(key: str, value: Tensor) -> Tensor:
    if key.endswith(('.scale', '.shift')):
        return value[None, None, None]
    return value[..., None] if re.search(r'\.linear[12]?\.weight$', key) else value
