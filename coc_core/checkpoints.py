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


def from_official(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Translate a published image model's state dict into this project's names and shapes.

    Works for classification and dense models, of either generation. The 1x1 convolutions of the clustering layer (and,
    in the first files, of the MLP) become matrices, and its projections ``f`` and ``v`` become one.

    Args:
        state_dict: Official names to tensors; it is not changed.

    Returns:
        This project's names to tensors; those that need no reshaping share memory with the input.

    Raises:
        ValueError: A key is not one of the published model's, or ``f`` comes without ``v``.
    """
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
