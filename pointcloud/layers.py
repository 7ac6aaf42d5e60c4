"""The layers of PointMLP, all on points whose channels come last: [..., C]."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint, create_selective_checkpoint_contexts

from coc_core.ops import cluster
from pointcloud.grouping import farthest_point_sample, gather_points, nearest_neighbors

GROUP_EPS = 1e-5


class PointNorm(nn.BatchNorm1d):
    """Batch norm of [..., C] over everything but the channels."""

    def forward(self, x: Tensor) -> Tensor:
        """[..., C] -> [..., C]; without momentum a batch leaves no trace in the running statistics."""
        momentum = self.momentum or 0.0
        if self.training and momentum and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        normed = F.batch_norm(
            x.flatten(0, -2),
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            self.training,
            momentum,
            self.eps,
        )
        return normed.view_as(x)


class ResidualBlock(nn.Module):
    """relu(x + norm2(linear2(relu(norm1(linear1(x))))) on each point by itself.

    Args:
        dim: Channels.
        expansion: Hidden width divided by ``dim``.
    """

    def __init__(self, dim: int, expansion: float) -> None:
        super().__init__()
        hidden = int(dim * expansion)
        self.linear1 = nn.Linear(dim, hidden, bias=False)
        self.norm1 = PointNorm(hidden)
        self.linear2 = nn.Linear(hidden, dim, bias=False)
        self.norm2 = PointNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        """[..., C] -> [..., C]."""
        hidden = F.relu(self.norm1(self.linear1(x)), inplace=True)
        return F.relu(self.norm2(self.linear2(hidden)).add_(x), inplace=True)


class ClusterBlock(nn.Module):
    """x + fc2(cluster(fc1(x), fc_v(x))): the clustering operator with one region and one center in each group.

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
        maps = x.flatten(0, 1)[:, :, None, None]
        mixed = cluster(
            self.points(maps),
            maps,
            self.sim_alpha,
            self.sim_beta,
            center_grid=1,
            region_grid=1,
            center_map=self._project,
        )
        return mixed.view_as(x) + x + self.proj.bias

    def _project(self, centers: Tensor) -> Tensor:
        """Both projections of the values on the centers, of which there is one for all points of a group."""
        return F.linear(self.values(centers), self.proj.weight)


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
        scaled = of_difference * self.scale
        points = F.linear(x, scaled) / deviation
        offsets = F.linear(anchor_features, of_anchor, of_difference @ self.shift) - gather_points(points, anchors)
        embedded = gather_points(points, members) + offsets[:, :, None]
        return F.relu(self.norm(embedded), inplace=True)


def group_deviation(x: Tensor, anchor_features: Tensor, members: Tensor) -> Tensor:
    """Return the unbiased standard deviation of all values of (member - anchor) of a cloud: [B, 1, 1].

    Args:
        x: Features of the points, [B, N, C].
        anchor_features: Features of the anchors, [B, S, C].
        members: Indices of the points of each group, [B, S, K].
    """
    # From sums and inner products of pairs: the differences themselves, [B, S, K, C], are never built. Both terms
    # lose the mean first, so that the squares stay small.
    center = x.mean(dim=1, keepdim=True)
    x, anchor_features = x - center, anchor_features - center
    products = (anchor_features @ x.transpose(1, 2)).gather(2, members)
    squares = gather_points(x.square().sum(-1, keepdim=True), members).squeeze(-1)
    sums = gather_points(x.sum(-1, keepdim=True), members).squeeze(-1) - anchor_features.sum(-1)[..., None]
    count = members[0].numel() * x.shape[-1]
    square = (squares + anchor_features.square().sum(-1)[..., None] - 2 * products).sum(dim=(1, 2))
    variance = (square - sums.sum(dim=(1, 2)).square() / count) / (count - 1)
    # Where all points are one, the square root has no gradient; clamping gives it a zero one.
    return variance.clamp_min(torch.finfo(x.dtype).tiny).sqrt()[:, None, None]


@contextmanager
def _unseen(context: AbstractContextManager[None], norms: list[PointNorm]) -> Iterator[None]:
    """Within a context, have norms see a batch again without counting it in their running statistics."""
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        with context:
            yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum


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
        if torch.is_grad_enabled():
            x = checkpoint(self._mix, x, anchors, members, use_reentrant=False, context_fn=self._recomputation)
        else:
            x = self._mix(x, anchors, members)
        return gather_points(coordinates, anchors), self.post_blocks(x)

    def _mix(self, x: Tensor, anchors: Tensor, members: Tensor) -> Tensor:
        mixed: Tensor = self.pre_blocks(self.embedding(x, anchors, members)).max(dim=2).values
        return mixed

    def _recomputation(self) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        """Keep products of matrices for backward, which take the time, and compute the rest again."""
        products = [torch.ops.aten.mm.default, torch.ops.aten.addmm.default]
        forward, backward = create_selective_checkpoint_contexts(products)  # type: ignore[no-untyped-call]
        return forward, _unseen(backward, [m for m in self.modules() if isinstance(m, PointNorm)])

    def group(self, coordinates: Tensor) -> tuple[Tensor, Tensor]:
        """[B, N, 3] -> indices of the anchors, [B, S], and of the members of their groups, [B, S, K]."""
        anchors = farthest_point_sample(coordinates, self.anchors)
        return anchors, nearest_neighbors(coordinates, gather_points(coordinates, anchors), self.neighbors)
