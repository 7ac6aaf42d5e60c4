"""Published Context Cluster weights in this project's names."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

_RENAMES = (
    (r'^patch_embed\.proj\.', 'stem.'),
    (r'\.layer_scale_1$', '.gamma1'),
    (r'\.layer_scale_2$', '.gamma2'),
    (r'\.token_mixer\.', '.mixer.'),
)
_BLOCK = re.compile(r'^network\.(\d+)\.(\d+)\.(.+)$')
_DOWNSAMPLE = re.compile(r'^network\.(\d+)\.proj\.(.+)$')
_DENSE_NORM = re.compile(r'^norm(\d+)\.(weight|bias)$')
_MATRIX = re.compile(r'\.(?:mixer\.(?:f|v|proj)|mlp\.fc[12])\.weight$')
_POINTS = re.compile(r'^(.+\.mixer\.)f\.(weight|bias)$')


_POINT_RENAMES = (
    (r'^embedding\.net\.0\.', 'backbone.linear.'),
    (r'^embedding\.net\.1\.', 'backbone.norm.'),
    (r'^local_grouper_list\.(\d+)\.affine_alpha$', r'backbone.stages.\1.embedding.scale'),
    (r'^local_grouper_list\.(\d+)\.affine_beta$', r'backbone.stages.\1.embedding.shift'),
    (r'^pre_blocks_list\.(\d+)\.transfer\.net\.0\.', r'backbone.stages.\1.embedding.linear.'),
    (r'^pre_blocks_list\.(\d+)\.transfer\.net\.1\.', r'backbone.stages.\1.embedding.norm.'),
    (r'^pre_blocks_list\.(\d+)\.operation\.', r'backbone.stages.\1.pre_blocks.'),
    (r'^pos_blocks_list\.(\d+)\.operation\.', r'backbone.stages.\1.post_blocks.'),
    (r'^classifier\.', 'head.layers.'),
)
_POINT_LAYERS = {
    'net1.0': 'linear1', 'net1.1': 'norm1', 'net2.0': 'linear2', 'net2.1': 'norm2',
    'fc1': 'points', 'fc_v': 'values', 'fc2': 'proj',
}  # fmt: skip
_POINT_LAYER = re.compile(rf'(_blocks\.\d+\.)({"|".join(map(re.escape, _POINT_LAYERS))})\.')


def from_official(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Translate a published model's state dict into this project's names and shapes.

    Works for classification and dense image models, of either generation, and for point-cloud classifiers. 1x1
    convolutions become matrices, and an image model's projections ``f`` and ``v`` become one. The ``module.`` before
    every name that data-parallel training leaves is dropped.

    Args:
        state_dict: Official names to tensors; it is not changed.

    Returns:
        This project's names to tensors; those that need no reshaping share memory with the input.

    Raises:
        ValueError: A key is not one of the published model's, or ``f`` comes without ``v``.
    """
    if state_dict and all(key.startswith('module.') for key in state_dict):
        state_dict = {key.removeprefix('module.'): value for key, value in state_dict.items()}
    if 'embedding.net.0.weight' in state_dict:
        return _from_official_points(state_dict)
    renamed = {_rename(key): value for key, value in state_dict.items()}
    squeezed = {k: v.flatten(1) if _MATRIX.search(k) and v.ndim == 4 else v for k, v in renamed.items()}
    translated: dict[str, Tensor] = {}
    for key, value in squeezed.items():
        points = _POINTS.match(key)
        if points is None:
            translated[key] = value
            continue
        prefix, leaf = points.groups()
        partner = f'{prefix}v.{leaf}'
        if partner not in squeezed:
            raise ValueError(f'The state dict has {key!r} but not {partner!r}: the two are halves of one projection.')
        translated[f'{prefix}points_values.{leaf}'] = torch.cat([value, squeezed[partner]])
    return {key: value for key, value in translated.items() if not re.search(r'\.mixer\.v\.(weight|bias)$', key)}


def _rename(key: str) -> str:
    # The published network is one list in which stages (even places) and downsampling layers (odd) alternate.
    block, downsample, dense_norm = _BLOCK.match(key), _DOWNSAMPLE.match(key), _DENSE_NORM.match(key)
    if downsample and int(downsample[1]) % 2 == 1:
        return f'stages.{(int(downsample[1]) + 1) // 2}.downsample.{downsample[2]}'
    if block and int(block[1]) % 2 == 0:
        key = f'stages.{int(block[1]) // 2}.blocks.{block[2]}.{block[3]}'
    elif dense_norm and int(dense_norm[1]) % 2 == 0:
        return f'dense_norms.{int(dense_norm[1]) // 2}.{dense_norm[2]}'
    elif not re.match(r'^(patch_embed\.proj|norm|head)\.(weight|bias)$', key):
        raise ValueError(f'{key!r} is not a key of a published Context Cluster image model.')
    for pattern, name in _RENAMES:
        key = re.sub(pattern, name, key)
    return key


def _from_official_points(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    translated = {}
    for key, value in state_dict.items():
        name = next((re.sub(old, new, key) for old, new in _POINT_RENAMES if re.search(old, key)), None)
        if name is None:
            raise ValueError(f'{key!r} is not a key of a published point-cloud model.')
        name = _POINT_LAYER.sub(lambda match: f'{match[1]}{_POINT_LAYERS[match[2]]}.', name)
        # Convolutions of kernel 1 are [out, in, 1], the affine vectors of a group [1, 1, 1, C].
        flat = name.endswith(('.scale', '.shift')) or value.ndim == 3
        translated[name] = value.reshape(-1 if value.ndim == 4 else (len(value), -1)) if flat else value
    return translated
