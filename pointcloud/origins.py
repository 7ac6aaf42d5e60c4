"""Checkpoints of point-cloud models: the published code's, and this project's."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from coc_core.checkpoints.origins import Content, Origin, Source, register_origin
from coc_core.checkpoints.origins.records import recorded_backbone, recorded_title
from coc_core.errors import UserError
from pointcloud.variants import VARIANTS, PointMLPConfig, get_config

# The published name and ours; {} is the stage.
_NAMES = (
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
_LAYERS = {
    'net1.0': 'linear1', 'net1.1': 'norm1', 'net2.0': 'linear2', 'net2.1': 'norm2',
    'fc1': 'points', 'fc_v': 'values', 'fc2': 'proj',
}  # fmt: skip
_LAYER = re.compile(rf'(_blocks\.\d+\.)({"|".join(map(re.escape, _LAYERS))})\.')
_PUBLISHED_LAYERS = {ours: published for published, ours in _LAYERS.items()}


class Clouds(Origin):
    """Names of `pointcloud.create_model`."""

    names = re.compile(r'^((?:.*\.)?)backbone\.stages\.\d+\.embedding\.')
    models = 'point-cloud'
    family = 'points'
    title = 'point-cloud checkpoint of this project'

    def translate(self, content: Content) -> Source:
        """Return the weights by this project's names."""
        weights, unknown, changes = self.rename(content.weights)
        title = recorded_title(content.meta) or self.title
        left = {**{key: content.weights[key] for key in unknown}, **content.others}
        backbone = recorded_backbone(content.meta, VARIANTS)
        return Source(self, title, self.family, weights, left, (*content.steps, *changes), backbone=backbone)

    def variant(self, arch: Any) -> PointMLPConfig:
        """Return a variant of `pointcloud`."""
        return get_config(arch)

    def library_form(self, source: Source) -> str | None:
        """Return this project's names: `pointcloud` is the library."""
        return 'pth'


class PublishedClouds(Clouds):
    """The published code's names, for PointMLP with and without clustering layers."""

    names = re.compile(r'^((?:.*\.)?)(?:pre_blocks_list|local_grouper_list)\.\d+\.')
    form = 'published'
    title = 'published point-cloud checkpoint'

    def rename(self, weights: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str], list[str]]:
        """Rename; make matrices of convolutions of kernel 1."""
        translated: dict[str, Tensor] = {}
        unknown: list[str] = []
        for key, value in weights.items():
            name = _our_name(key)
            if name is None or name in translated:
                unknown.append(key)
            else:
                translated[name] = _as_ours(name, value)
        return translated, unknown, ['published names; convolutions of kernel 1 to matrices']

    def rename_back(self, weights: Mapping[str, Tensor], *, first_generation: bool = False) -> dict[str, Tensor]:
        """Rename; make convolutions of kernel 1 of matrices."""
        return {_published_name(key): _as_published(key, value) for key, value in weights.items()}

    def content_of_file(self, weights: Mapping[str, Tensor], meta: Mapping[str, str]) -> dict[str, Any]:
        """Return what the published code saves."""
        return {'net': dict(weights)}


def _renamed(key: str, names: Iterable[tuple[str, str]]) -> str | None:
    """Return the key with its beginning in the second form, where it has one in the first."""
    for old, new in names:
        found = re.match(re.escape(old).replace(r'\{\}', r'(\d+)'), key)
        if found:
            return new.format(*found.groups()) + key[found.end() :]
    return None


def _our_name(key: str) -> str | None:
    name = _renamed(key, _NAMES)
    return name and _LAYER.sub(lambda match: f'{match[1]}{_LAYERS[match[2]]}.', name)


def _as_ours(name: str, value: Tensor) -> Tensor:
    """Drop the axes of length 1 of convolutions, [out, in, 1], and of the affine vectors of a group, [1, 1, 1, C]."""
    if name.endswith(('.scale', '.shift')) and value.shape[:-1] == (1, 1, 1):
        return value.flatten()
    return value.flatten(1) if value.ndim == 3 and value.shape[2] == 1 else value


def _published_name(key: str) -> str:
    name = _renamed(key, [(ours, published) for published, ours in _NAMES])
    if name is None:
        raise UserError(f'{key!r} is not a key of a point-cloud model of this project.')
    layer = re.match(r'^(.+\.operation\.\d+\.)(\w+)\.(\w+)$', name)
    return f'{layer[1]}{_PUBLISHED_LAYERS.get(layer[2], layer[2])}.{layer[3]}' if layer else name


def _as_published(key: str, value: Tensor) -> Tensor:
    if key.endswith(('.scale', '.shift')):
        return value[None, None, None]
    return value[..., None] if re.search(r'\.linear[12]?\.weight$', key) else value


register_origin(PublishedClouds())
register_origin(Clouds())
