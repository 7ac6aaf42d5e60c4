"""Context Cluster literally as published, on the parameters of a `ContextCluster`: channels first, 1x1 convolutions.

Slow, hungry for memory, and meant to be read; benchmarks measure against it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from coc_core.errors import UserError
from coc_core.images import append_coordinates, pad_to_multiple
from coc_core.model import ContextCluster
from coc_core.ops import cluster


def classify_reference(model: ContextCluster, images: Tensor) -> Tensor:
    """Return what ``model(images)`` returns, up to rounding: logits [B, num_classes]. Sizes must divide.

    Raises:
        UserError: The model has a mixer that was not published.
    """
    *_, x_BCHW = stage_maps_reference(model, images)
    pooled: Tensor = model.head_drop(_norm(model.norm, x_BCHW).mean(dim=(2, 3)))
    logits: Tensor = model.head(pooled)
    return logits


def dense_reference(model: ContextCluster, images: Tensor) -> tuple[Tensor, ...]:
    """Return what ``model.forward_dense(images)`` returns, up to rounding. Sizes must divide.

    Raises:
        UserError: The model has a mixer that was not published.
    """
    maps = enumerate(stage_maps_reference(model, images))
    return tuple(_norm(model.dense_norms[str(i)], x) for i, x in maps if i in model.dense_indices)


def stage_maps_reference(model: ContextCluster, images: Tensor) -> Iterator[Tensor]:
    """Yield the output of each stage, [B, C, H', W'] over the padded image.

    Raises:
        UserError: The model has a mixer that was not published.
    """
    x_BCHW = model.stem(append_coordinates(pad_to_multiple(images, model.size_divisibility)))
    for stage in model.stages:
        x_BCHW = stage.downsample(x_BCHW)  # type: ignore[operator]
        block: Any
        for block in stage.blocks:  # type: ignore[union-attr]
            mixed = _mix(block.mixer, _norm(block.norm1, x_BCHW))
            x_BCHW = x_BCHW + block.drop_path(block.gamma1[:, None, None] * mixed)
            hidden = _mlp(block.mlp, _norm(block.norm2, x_BCHW))
            x_BCHW = x_BCHW + block.drop_path(block.gamma2[:, None, None] * hidden)
        yield x_BCHW


def _norm(norm: Any, x_BCHW: Tensor) -> Tensor:
    return F.group_norm(x_BCHW, 1, norm.weight, norm.bias, norm.eps)


def _mlp(mlp: Any, x_BCHW: Tensor) -> Tensor:
    x_BHWC = rearrange(x_BCHW, 'b c h w -> b h w c')
    hidden: Tensor = mlp.fc2(F.gelu(mlp.fc1(x_BHWC)))
    return rearrange(hidden, 'b h w c -> b c h w')


def _mix(mixer: Any, x_BCHW: Tensor) -> Tensor:
    name = type(mixer).__name__
    own = mixer.own_parts() if hasattr(mixer, 'own_parts') else 'it is another layer'
    if own:
        raise UserError(f'{name} has no published form, only the stock clustering layer has one: {own}.')
    weights, biases = mixer.points_values.weight[..., None, None].chunk(2), mixer.points_values.bias.chunk(2)
    points, values = (
        rearrange(F.conv2d(x_BCHW, weight, bias), 'b (k d) h w -> b h w k d', k=mixer.heads)
        for weight, bias in zip(weights, biases, strict=True)
    )
    mixed = cluster(
        points,
        values,
        mixer.sim_alpha,
        mixer.sim_beta,
        center_grid=mixer.center_grid,
        region_grid=mixer.region_grid,
        denominator=mixer.denominator,
        impl='reference',
    )
    mixed_BCHW = rearrange(mixed, 'b h w k d -> b (k d) h w').contiguous()
    return F.conv2d(mixed_BCHW, mixer.proj.weight[..., None, None], mixer.proj.bias)
