"""Image models by the published code's names, of all its generations and tasks."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from coc_core.checkpoints.layouts import Layout
from coc_core.checkpoints.origins.base import Content, Denominator, Source
from coc_core.checkpoints.origins.images import TRUNK, Images
from coc_core.checkpoints.origins.records import STOCK_MIXER
from coc_core.errors import UserError

_RENAMES = (
    (r'^patch_embed\.proj\.', 'stem.'),
    (r'\.layer_scale_1$', '.gamma1'),
    (r'\.layer_scale_2$', '.gamma2'),
    (r'\.token_mixer\.', '.mixer.'),
    # The names that some releases give the layer's projections.
    (r'\.mixer\.fc1\.', '.mixer.f.'),
    (r'\.mixer\.fc_v\.', '.mixer.v.'),
    (r'\.mixer\.fc2\.', '.mixer.proj.'),
)
_BLOCK = re.compile(r'^network\.(0|[1-9]\d*)\.(\d+)\.(.+)$')
_DOWNSAMPLE = re.compile(r'^network\.([1-9]\d*)\.proj\.(weight|bias)$')
_DENSE_NORM = re.compile(r'^norm(0|[1-9]\d*)\.(weight|bias)$')
_REST = re.compile(r'^(patch_embed\.proj|norm|head)\.(weight|bias)$')
_MATRIX = re.compile(r'\.(?:(?:token_)?mixer\.(?:f|v|proj|fc1|fc_v|fc2)|mlp\.fc[12])\.weight$')
_MLP = re.compile(r'\.mlp\.fc[12]\.weight$')
_HALF = re.compile(r'^(.+\.mixer\.)([fv])\.(weight|bias)$')
_JOINED = re.compile(r'^(.+\.mixer\.)points_values\.(weight|bias)$')


class PublishedImages(Images):
    """The published code's names: stages and downsampling in one list, 1x1 convolutions, projections f and v."""

    names = re.compile(r'^((?:.*\.)?)network\.\d+\.\d+\.token_mixer\.(?:f|v|fc1|fc_v|sim_alpha|sim_beta)\b')
    form = 'published'
    title = 'published {task} checkpoint'

    def title_end(self, layout: Layout | None) -> str:
        """Return the library that the published code is written for."""
        return layout.published if layout else ''

    def rename(self, weights: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str], list[str]]:
        """Rename; make matrices of 1x1 convolutions; join f and v."""
        translated: dict[str, Tensor] = {}
        unknown: list[str] = []
        halves: dict[str, dict[str, tuple[str, Tensor]]] = {}
        for key, value in weights.items():
            name = _our_name(key)
            half = _HALF.match(name or '')
            parts = halves.setdefault(f'{half[1]}points_values.{half[3]}', {}) if half else {}
            if name is None or name in translated or (half and half[2] in parts):
                unknown.append(key)
            elif half is not None:
                parts[half[2]] = key, _as_matrix(key, value)
            else:
                translated[name] = _as_matrix(key, value)
        for name, parts in halves.items():
            tensors = [parts[half][1] for half in 'fv' if half in parts]
            if len(tensors) == 2 and tensors[0].ndim and len({(half.shape, half.dtype) for half in tensors}) == 1:
                translated[name] = torch.cat(tensors)
            else:
                unknown += [key for key, _ in parts.values()]
        generation = ['4-D MLP weights to matrices'] if _is_first_generation(weights) else []
        return translated, unknown, ['published names; 1x1 convolutions to matrices; f and v joined', *generation]

    def why_unknown(self, name: str) -> str:
        """Say what half of a projection lacks."""
        if _HALF.match(_our_name(name) or ''):
            return f'{name!r} has no partner of its shape and type: f and v are the halves of one projection.'
        return super().why_unknown(name)

    def denominator_of(self, trunk: Mapping[str, Tensor]) -> Denominator | None:
        """Return the count for the first generation; what others were trained with, they do not tell."""
        if not _is_first_generation(trunk):
            return None
        return Denominator('count', 'its MLP weights are 4-D, as in the first files of March 2023 alone', True)

    def mixer_of(self, content: Content) -> str | None:
        """Return the published layer."""
        return STOCK_MIXER

    def translate_back(self, source: Source) -> dict[str, Tensor]:
        """Return the published names, below ``backbone.`` in a whole model, whose other parts stay as they are."""
        start = 'backbone.' if source.layout is not None and source.layout.dense else ''
        parts = {k: v for k, v in source.weights.items() if start and not k.startswith(TRUNK)}
        trunk = {k: v for k, v in source.weights.items() if k not in parts}
        named = self.rename_back(trunk, first_generation=source.denominator.first_generation)
        return {**{start + k: v for k, v in named.items()}, **parts}

    def rename_back(self, weights: Mapping[str, Tensor], *, first_generation: bool = False) -> dict[str, Tensor]:
        """Rename; make 1x1 convolutions of matrices, of the MLPs' in the first generation too; part f and v."""
        published: dict[str, Tensor] = {}
        for key, value in weights.items():
            joined = _JOINED.match(key)
            parts = {key: value}
            if joined is not None:
                parts = dict(zip((f'{joined[1]}{half}.{joined[2]}' for half in 'fv'), value.chunk(2), strict=True))
            for name, part in parts.items():
                convolution = _MATRIX.search(name) and (first_generation or not _MLP.search(name))
                published[_published_name(name)] = part[..., None, None] if convolution else part
        return published


def _is_first_generation(state_dict: Mapping[str, Tensor]) -> bool:
    """Whether the MLPs are convolutions, as in the first files of March 2023 alone."""
    return any(_MLP.search(key) and value.ndim == 4 for key, value in state_dict.items())


def _our_name(key: str) -> str | None:
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
    for pattern, name in _RENAMES:
        key = re.sub(pattern, name, key)
    return key


def _as_matrix(key: str, value: Tensor) -> Tensor:
    """Return a 1x1 convolution's weight [out, in, 1, 1] as [out, in]; anything else as it is."""
    return value.flatten(1) if _MATRIX.search(key) and value.shape[2:] == (1, 1) else value


def _published_name(key: str) -> str:
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
        raise UserError(f'{key!r} is not a key of a Context Cluster of this project.')
    return re.sub(r'^stem\.', 'patch_embed.proj.', key)
