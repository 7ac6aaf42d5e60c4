"""The clustering operator on slabs: strips of a map that are one region high, [S, h, W, ...].

S = images * rows of regions; they lie one behind the other in memory, so that some of them are a view. G = S * regions
in a row * heads groups. Of a few slabs at a time the operator keeps the inputs, and of each point its center.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from coc_core.ops.context import differentiated_once, without_autocast, working_dtype
from coc_core.ops.cpu.groups import cluster_groups, cluster_groups_backward
from coc_core.ops.regions import Grid, Pair, as_pair, cached_windows, region_size

# Of the points, values and similarities that are at work at a time.
PIECE_BYTES = 8 * 2**20
# A batch of matrices that each take fewer multiplications is PyTorch's own loops, up to nine times as slow.
LIBRARY_PRODUCTS = 400


@dataclass(frozen=True)
class SlabClustering:
    """How a map's slabs are clustered.

    Attributes:
        height: Rows of a region.
        cols: Regions in a row.
        heads: K.
        center_grid: Rows and columns of centers in a region.
        denominator: See `coc_core.ops.cluster`.
    """

    height: int
    cols: int
    heads: int
    center_grid: Pair
    denominator: str

    @classmethod
    def of(cls, points_BHWKD: Tensor, center_grid: Grid, region_grid: Grid, denominator: str) -> SlabClustering:
        """Return how the slabs of a map are clustered.

        Raises:
            UserError: The map does not divide into the regions, or a grid is impossible.
        """
        height, _ = region_size(points_BHWKD, region_grid)
        _, cols = as_pair(region_grid, 'region_grid')
        return cls(height, cols, points_BHWKD.shape[3], as_pair(center_grid, 'center_grid'), denominator)

    def pieces(self, x_SHW: Tensor, dims: int) -> Iterator[slice]:
        """Cut the slabs of a map into pieces; ``dims`` are the channels of a point and its values together."""
        centers = self.center_grid[0] * self.center_grid[1]
        bytes_of_one = 4 * self.height * x_SHW.shape[2] * self.heads * (dims + 2 * centers)
        step = max(1, PIECE_BYTES // bytes_of_one)
        return (slice(start, start + step) for start in range(0, len(x_SHW), step))

    def _groups(self, *maps_SHWKD: Tensor) -> tuple[Tensor, ...]:
        """Return the pooling windows, [M, N], and each map as groups, [G, N, D], in the computing precision.

        Small groups have spare channels of zeros, which change no product.
        """
        first = maps_SHWKD[0]
        dtype = working_dtype(first)
        size = self.height, first.shape[2] // self.cols
        windows_MN = cached_windows(size, self.center_grid, dtype, first.device)
        return windows_MN, *(self._group(x, windows_MN.numel()).to(dtype) for x in maps_SHWKD)

    def _group(self, x_SHWKD: Tensor, assignments: int) -> Tensor:
        parts = rearrange(x_SHWKD, 's h (c w) k d -> s c k h w d', c=self.cols)
        spare = spare_channels(assignments, parts.shape[-1])
        return rearrange(F.pad(parts, (0, spare)) if spare else parts, 's c k h w d -> (s c k) (h w) d')

    def _write(self, target_SHWKD: Tensor, x_GND: Tensor) -> None:
        """Put groups, without spare channels, into a map that is there, of any strides and dtype."""
        places = rearrange(target_SHWKD, 's h (c w) k d -> s c k h w d', c=self.cols)
        places.copy_(x_GND[..., : places.shape[-1]].view(places.shape))

    def forward(
        self, points_SHWKD: Tensor, values_SHWKD: Tensor, alpha: Tensor, beta: Tensor, mixed_SHWKD: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Fill in the mixed values; return center and cosine of each point, [S, G / S, N]."""
        windows_MN, points_GND, values_GND = self._groups(points_SHWKD, values_SHWKD)
        mixed, index, cosine = cluster_groups(points_GND, values_GND, alpha, beta, windows_MN, self.denominator)
        self._write(mixed_SHWKD, mixed)
        of_slabs = (len(points_SHWKD), -1, mixed.shape[1])
        return index.view(of_slabs), cosine.view(of_slabs)

    def backward(
        self, points_SHWKD: Tensor, values_SHWKD: Tensor, alpha: Tensor, beta: Tensor, index: Tensor, cosine: Tensor,
        grad_SHWKD: Tensor, grad_points_SHWKD: Tensor, grad_values_SHWKD: Tensor, mixed_SHWKD: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """Fill in the gradients of points and values, and what `forward` made; return those of alpha and beta."""
        windows_MN, points_GND, values_GND, grad_GND = self._groups(points_SHWKD, values_SHWKD, grad_SHWKD)
        grad_points, grad_values, grad_scalars, mixed = cluster_groups_backward(
            points_GND, values_GND, alpha, beta, windows_MN, self.denominator,
            index.flatten(0, 1), cosine.flatten(0, 1), grad_GND, mixed_again=mixed_SHWKD is not None,
        )  # fmt: skip
        self._write(grad_points_SHWKD, grad_points)
        self._write(grad_values_SHWKD, grad_values)
        if mixed_SHWKD is not None and mixed is not None:
            self._write(mixed_SHWKD, mixed)
        return grad_scalars


def spare_channels(assignments: int, dim: int) -> int:
    """Return how many channels of zeros make the products of a group faster: none where they would double its size.

    Args:
        assignments: Centers of a region times its points.
        dim: Channels of a head.
    """
    spare = -(-LIBRARY_PRODUCTS // max(assignments, 1)) - dim
    return spare if 0 < spare < dim else 0


def cluster(points_BHWKD: Tensor, values_BHWKD: Tensor, alpha: Tensor, beta: Tensor, **options: Any) -> Tensor:
    """See `coc_core.ops.cluster`."""
    slabs = SlabClustering.of(points_BHWKD, **options)
    points, values = (x.reshape(-1, slabs.height, *x.shape[2:]) for x in (points_BHWKD, values_BHWKD))
    with without_autocast(points):
        mixed: Tensor = _Cluster.apply(points, values, alpha, beta, slabs)  # type: ignore[no-untyped-call]
    return mixed.view(values_BHWKD.shape)


class _Cluster(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, points_SHWKD: Tensor, values_SHWKD: Tensor, alpha: Tensor, beta: Tensor, slabs: SlabClustering
    ) -> Tensor:
        mixed = values_SHWKD.new_empty(values_SHWKD.shape)
        alpha_, beta_ = (x.to(working_dtype(points_SHWKD)) for x in (alpha, beta))
        found = [
            slabs.forward(points_SHWKD[piece], values_SHWKD[piece], alpha_, beta_, mixed[piece])
            for piece in slabs.pieces(points_SHWKD, points_SHWKD.shape[-1] + values_SHWKD.shape[-1])
        ]
        index, cosine = (torch.cat(parts) for parts in zip(*found, strict=True)) if found else (mixed, mixed)
        ctx.save_for_backward(points_SHWKD, values_SHWKD, alpha, beta, index, cosine)
        ctx.slabs = slabs
        return mixed

    @staticmethod
    @differentiated_once
    def backward(ctx: Any, grad_SHWKD: Tensor) -> tuple[Tensor | None, ...]:
        points, values, alpha, beta, index, cosine = ctx.saved_tensors
        slabs: SlabClustering = ctx.slabs
        grad_points, grad_values = (x.new_empty(x.shape) for x in (points, values))
        alpha_, beta_ = (x.to(working_dtype(points)) for x in (alpha, beta))
        grad_scalars = points.new_zeros(2, dtype=working_dtype(points))
        for piece in slabs.pieces(points, points.shape[-1] + values.shape[-1]):
            grad_scalars += slabs.backward(
                points[piece], values[piece], alpha_, beta_, index[piece], cosine[piece],
                grad_SHWKD[piece], grad_points[piece], grad_values[piece],
            )  # fmt: skip
        grad_alpha, grad_beta = (g.to(x.dtype).view(x.shape) for g, x in zip(grad_scalars, (alpha, beta), strict=True))
        return grad_points, grad_values, grad_alpha, grad_beta, None
