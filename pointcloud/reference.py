"""PointMLP literally as published, on the parameters of a `PointMLP`: slow, hungry for memory, and meant to be read."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from coc_core.ops import cluster
from pointcloud.grouping import farthest_point_sample
from pointcloud.layers import GROUP_EPS, ClusterBlock, Stage
from pointcloud.models import PointMLP
from pointcloud.norm import PointNorm
from pointcloud.residual import ResidualBlock


def pointmlp_reference(model: PointMLP, points_BN3: Tensor) -> Tensor:
    """Return what ``model(points_BN3)`` returns, up to rounding: features [B, C]."""
    x_BCN = F.relu(_norm(model.norm, _convolve(model.linear, points_BN3.transpose(1, 2))))
    coordinates, x_BNC = points_BN3, x_BCN.transpose(1, 2)
    for stage in model.stages:
        assert isinstance(stage, Stage)
        coordinates, groups_BSKC = group(stage, coordinates, x_BNC)
        x_GCK = rearrange(groups_BSKC, 'b s k c -> (b s) c k')
        x_GCK = F.relu(_norm(stage.embedding.norm, _convolve(stage.embedding.linear, x_GCK)))
        for block in stage.pre_blocks:
            x_GCK = _mix(block, x_GCK) if isinstance(block, ClusterBlock) else _residual(block, x_GCK)
        x_BCS = rearrange(F.adaptive_max_pool1d(x_GCK, 1), '(b s) c 1 -> b c s', s=stage.anchors)
        for block in stage.post_blocks:
            x_BCS = _residual(block, x_BCS)
        x_BNC = x_BCS.transpose(1, 2)
    return F.adaptive_max_pool1d(x_BNC.transpose(1, 2), 1).squeeze(-1)


def group(stage: Stage, coordinates_BN3: Tensor, x_BNC: Tensor) -> tuple[Tensor, Tensor]:
    """Return the anchors' coordinates [B, S, 3] and the groups' features [B, S, K, 2C], the anchors' own last."""
    anchors_BS = farthest_point_sample(coordinates_BN3, stage.anchors)
    anchors_BS3, anchors_BSC = _index(coordinates_BN3, anchors_BS), _index(x_BNC, anchors_BS)
    squares_BSN = -2 * anchors_BS3 @ coordinates_BN3.transpose(1, 2)
    squares_BSN = squares_BSN + anchors_BS3.square().sum(-1)[..., None] + coordinates_BN3.square().sum(-1)[:, None]
    members_BSK = squares_BSN.topk(stage.neighbors, dim=-1, largest=False, sorted=False).indices
    differences_BSKC = _index(x_BNC, members_BSK) - anchors_BSC[:, :, None]
    deviation_B = differences_BSKC.flatten(1).std(dim=-1)
    normed_BSKC = differences_BSKC / (deviation_B[:, None, None, None] + GROUP_EPS)
    normed_BSKC = stage.embedding.scale * normed_BSKC + stage.embedding.shift
    repeated_BSKC = anchors_BSC[:, :, None].repeat(1, 1, stage.neighbors, 1)
    return anchors_BS3, torch.cat([normed_BSKC, repeated_BSKC], dim=-1)


def _index(values_BNC: Tensor, index: Tensor) -> Tensor:
    clouds = torch.arange(len(values_BNC), device=index.device).reshape(-1, *(1,) * (index.ndim - 1))
    return values_BNC[clouds, index]


def _convolve(linear: nn.Linear, x_BCN: Tensor) -> Tensor:
    return F.conv1d(x_BCN, linear.weight[..., None], linear.bias)


def _norm(norm: PointNorm, x_BCN: Tensor) -> Tensor:
    return nn.BatchNorm1d.forward(norm, x_BCN)


def _residual(block: nn.Module, x_BCN: Tensor) -> Tensor:
    assert isinstance(block, ResidualBlock)
    hidden = F.relu(_norm(block.norm1, _convolve(block.linear1, x_BCN)), inplace=True)
    return F.relu(x_BCN + _norm(block.norm2, _convolve(block.linear2, hidden)), inplace=True)


def _mix(block: ClusterBlock, x_GCK: Tensor) -> Tensor:
    maps = x_GCK.transpose(1, 2)[:, :, None, None]
    mixed = cluster(
        block.points(maps), block.values(maps), block.sim_alpha, block.sim_beta,
        center_grid=1, region_grid=1, impl='reference',
    )  # fmt: skip
    projected_GKC: Tensor = block.proj(mixed)[:, :, 0, 0]
    return x_GCK + projected_GKC.transpose(1, 2)
