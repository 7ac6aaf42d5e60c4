"""Context Cluster literally as published, on the parameters of a `ContextCluster`: channels first, 1x1 convolutions.

Slow, hungry for memory, and meant to be read; benchmarks measure against it.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch.nn.functional as F
from torch import Tensor, nn

from coc_core.layers import (
    ClusterMixer,
    ContextClusterBlock,
    MapNorm,
    RowwiseMlp,
    append_coordinates,
    pad_to_multiple,
)
from coc_core.model import ContextCluster
from coc_core.ops import cluster


def classify_reference(model: ContextCluster, images: Tensor) -> Tensor:
    """Return what ``model(images)`` returns, up to rounding: logits [B, num_classes]. Sizes must divide."""
    *_, x_BCHW = stage_maps_reference(model, images)
    pooled: Tensor = model.head_drop(_norm(model.norm, x_BCHW).mean(dim=(2, 3)))
    logits: Tensor = model.head(pooled)
    return logits


def dense_reference(model: ContextCluster, images: Tensor) -> tuple[Tensor, ...]:
    """Return what ``model.forward_dense(images)`` returns, up to rounding. Sizes must divide."""
    maps = enumerate(stage_maps_reference(model, images))
    return tuple(_norm(model.dense_norms[str(i)], x) for i, x in maps if i in model.dense_indices)


def stage_maps_reference(model: ContextCluster, images: Tensor) -> Iterator[Tensor]:
    """Yield the output of each stage, [B, C, H', W'] over the padded image."""
    x_BCHW = model.stem(append_coordinates(pad_to_multiple(images, model.size_divisibility)))
    for stage in model.stages:
        x_BCHW = stage.downsample(x_BCHW)  # type: ignore[operator]
        for block in stage.blocks:  # type: ignore[union-attr]
            assert isinstance(block, ContextClusterBlock) and isinstance(block.mixer, ClusterMixer)
            mixed = _mix(block.mixer, _norm(block.norm1, x_BCHW))
            x_BCHW = x_BCHW + block.drop_path(block.gamma1[:, None, None] * mixed)
            hidden = _mlp(block.mlp, _norm(block.norm2, x_BCHW).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
            x_BCHW = x_BCHW + block.drop_path(block.gamma2[:, None, None] * hidden)
        yield x_BCHW


def _norm(norm: nn.Module, x_BCHW: Tensor) -> Tensor:
    assert isinstance(norm, MapNorm)
    return F.group_norm(x_BCHW, 1, norm.weight, norm.bias, norm.eps)


def _mlp(mlp: RowwiseMlp, x_BHWC: Tensor) -> Tensor:
    hidden: Tensor = mlp.fc2(F.gelu(mlp.fc1(x_BHWC)))
    return hidden


def _mix(mixer: ClusterMixer, x_BCHW: Tensor) -> Tensor:
    weights, biases = mixer.points_values.weight[..., None, None].chunk(2), mixer.points_values.bias.chunk(2)
    points, values = (
        F.conv2d(x_BCHW, weight, bias)
        .view(len(x_BCHW), mixer.heads, mixer.head_dim, *x_BCHW.shape[2:])
        .permute(0, 3, 4, 1, 2)
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
    mixed_BCHW = mixed.flatten(3).permute(0, 3, 1, 2).contiguous()
    return F.conv2d(mixed_BCHW, mixer.proj.weight[..., None, None], mixer.proj.bias)
