"""The layers of PointMLP, all on points whose channels come last: [..., C]."""

from __future__ import annotations

from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from coc_core.ops.context import widen
from coc_core.ops.regions import NORM_EPS
from pointcloud.grouping import farthest_point_sample, gather_points, nearest_neighbors
from pointcloud.norm import PointNorm
from pointcloud.residual import ResidualBlock

GROUP_EPS = 1e-5


class ClusterBlock(nn.Module):
    """x + proj(cluster(points(x), values(x))): the clustering of the backbone, each group one region with one center.

    Args:
        dim: Channels.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        hidden = max(dim // 4, 32)
        self.points = nn.Linear(dim, hidden)
        self.values = nn.Linear(dim, hidden)
        self.proj = nn.Linear(hidden, dim)
        self.sim_alpha = nn.Parameter(torch.ones(1))
        self.sim_beta = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """[B, S, K, C] -> [B, S, K, C], mixed within each of the B * S groups."""
        s = torch.sigmoid(self.sim_beta + self.sim_alpha * self.similarities(x))[..., None, :]
        # What a center holds, (mean of the values + sum of s * value) / (1 + sum of s), as one mean with these weights.
        weights = (s + 1 / x.shape[2]) / (1 + s.sum(dim=-1, keepdim=True))
        with torch.autocast(x.device.type, enabled=False):
            held = (weights @ x.to(weights.dtype)).to(x.dtype)
        # Weights that sum to one let both projections wait for the center, of which a group has one.
        held = F.linear(self.values(held), self.proj.weight)
        # One pass over the map; a product of matrices with one center would be another, and a slow one.
        mixed = torch.addcmul(x, s.mT.to(x.dtype), held.to(x.dtype))
        return mixed.add_(self.proj.bias)

    def similarities(self, x: Tensor) -> Tensor:
        """Return the cosine of each point with its group's center, in float32 or better: [B, S, K, C] -> [B, S, K]."""
        features = widen(self.points(x))
        with torch.autocast(x.device.type, enabled=False):
            centers = F.normalize(features.mean(dim=2), dim=-1, eps=NORM_EPS)
            lengths = torch.linalg.vector_norm(features, dim=-1).clamp_min(NORM_EPS)
            cosine: Tensor = (features @ centers[..., None]).squeeze(-1) / lengths
        return cosine


class GroupEmbedding(nn.Module):
    """relu(norm(linear([scale * (member - anchor) / deviation + shift, anchor]))) for each member of each group.

    Args:
        dim: Channels of the points.
        out_dim: Channels of the embedded members.
    """

    def __init__(self, dim: int, out_dim: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(dim))
        self.shift = nn.Parameter(torch.zeros(dim))
        self.linear = nn.Linear(2 * dim, out_dim, bias=False)
        self.norm = PointNorm(out_dim)

    def forward(self, x: Tensor, anchors: Tensor, members: Tensor) -> Tensor:
        """[B, N, C], int64 anchors [B, S] and members [B, S, K] -> [B, S, K, C']."""
        anchor_features = gather_points(x, anchors)
        deviation = group_deviation(x, anchor_features, members) + GROUP_EPS
        # The linear layer is applied to the points before they are gathered: each is in many groups.
        of_difference, of_anchor = self.linear.weight.chunk(2, dim=1)
        points = F.linear(x, of_difference * self.scale) / deviation
        # Differences first: over a small deviation the points are large, and what is added to them alone is lost.
        embedded = gather_points(points, members) + gather_points(-points, anchors)[:, :, None]
        embedded += F.linear(anchor_features, of_anchor, of_difference @ self.shift)[:, :, None]
        return F.relu(self.norm(embedded.flatten(0, -2)), inplace=True).view_as(embedded)


def group_deviation(x: Tensor, anchor_features: Tensor, members: Tensor) -> Tensor:
    """Return the unbiased standard deviation of all values of (member - anchor) of a cloud: [B, 1, 1].

    Args:
        x: Features of the points, [B, N, C].
        anchor_features: Features of the anchors, [B, S, C].
        members: Indices of the points of each group, [B, S, K].
    """
    differences = gather_points(x, members) - anchor_features[:, :, None]
    centered = differences - differences.mean(dim=(1, 2, 3), keepdim=True)
    # PyTorch's std is ten times as slow on a CPU. A sum of so many squares in float32 would be far off.
    lengths = torch.linalg.vector_norm(centered, dim=-1)
    total = torch.linalg.vector_norm(lengths, dim=(1, 2), dtype=torch.float64)
    deviation: Tensor = total / (centered[0].numel() - 1) ** 0.5
    return deviation.to(x.dtype)[:, None, None]


class Stage(nn.Module):
    """Groups points around fewer anchors and makes one feature of each group.

    Args:
        dim: Channels of the points.
        out_dim: Channels of the anchors.
        anchors: Number of anchors.
        neighbors: Points of a group.
        pre_blocks: Residual blocks over the members of the groups.
        post_blocks: Residual blocks over the anchors.
        residual_expansion: See `ResidualBlock`.
        clustering: Whether a `ClusterBlock` precedes each of the ``pre_blocks``.
    """

    def __init__(
        self,
        dim: int,
        out_dim: int,
        *,
        anchors: int,
        neighbors: int,
        pre_blocks: int,
        post_blocks: int,
        residual_expansion: float,
        clustering: bool,
    ) -> None:
        super().__init__()
        self.anchors = anchors
        self.neighbors = neighbors
        self.embedding = GroupEmbedding(dim, out_dim)
        blocks: list[nn.Module] = []
        for _ in range(pre_blocks):
            blocks += [ClusterBlock(out_dim)] if clustering else []
            blocks.append(ResidualBlock(out_dim, residual_expansion))
        self.pre_blocks = nn.Sequential(*blocks)
        self.post_blocks = nn.Sequential(*(ResidualBlock(out_dim, residual_expansion) for _ in range(post_blocks)))

    def forward(self, coordinates: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """[B, N, 3] and [B, N, C] -> the anchors' [B, S, 3] and [B, S, C']."""
        anchors, members = self.group(coordinates)
        norm = self.embedding.norm
        if torch.is_grad_enabled() and isinstance(norm, PointNorm):
            # As cheap to compute again as its maps are large. A norm put in its place might count a batch twice.
            groups = checkpoint(
                self.embedding, x, anchors, members,
                use_reentrant=False, context_fn=lambda: (nullcontext(), norm.uncounted()),
            )  # fmt: skip
        else:
            groups = self.embedding(x, anchors, members)
        return gather_points(coordinates, anchors), self.post_blocks(self.pre_blocks(groups).max(dim=2).values)

    def group(self, coordinates: Tensor) -> tuple[Tensor, Tensor]:
        """[B, N, 3] -> indices of the anchors, [B, S], and of the members of their groups, [B, S, K]."""
        anchors = farthest_point_sample(coordinates, self.anchors)
        return anchors, nearest_neighbors(coordinates, gather_points(coordinates, anchors), self.neighbors)
