"""The clustering operator with a backward of its own: a few regions at a time, of which it keeps the inputs.

On a CPU the regions at work stay in the caches, and no large tensor is made but the result.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from coc_core.ops.common import Grid, RegionLayout, as_pair, outside_autocast, working_dtype
from coc_core.ops.groups import cluster_groups, cluster_groups_backward, mix_again, pooling_windows

# Of the points, values and similarities that are at work at a time: a CPU's caches hold it; a GPU wants many groups.
CHUNK_BYTES = {'cpu': 8 * 2**20, 'cuda': 256 * 2**20}


@dataclass(frozen=True)
class SlabClustering:
    """Clustering of slabs: strips of a map that are one region high, [S, h, W, ...], S = images * rows of regions.

    They lie one behind the other in memory, so that some of them are a view. G = S * regions in a row * heads groups.
    """

    height: int
    cols: int
    heads: int
    center_grid: tuple[int, int]
    denominator: str

    @classmethod
    def of(cls, points_BHWKD: Tensor, center_grid: Grid, region_grid: Grid, denominator: str) -> SlabClustering:
        """Return how the map's slabs are clustered.

        Raises:
            ValueError: The map does not divide into the regions, or a grid is impossible.
        """
        layout = RegionLayout.of(points_BHWKD, region_grid)
        centers = as_pair(center_grid, 'center_grid')
        return cls(layout.height, layout.region_cols, layout.heads, centers, denominator)

    def chunks(self, slabs: int, width: int, dims: int, device: torch.device) -> Iterator[slice]:
        """Cut ``slabs`` into pieces; ``dims`` are the channels of a point and its values together."""
        centers = self.center_grid[0] * self.center_grid[1]
        bytes_of_one = 4 * self.height * width * self.heads * (dims + 2 * centers)
        step = max(1, CHUNK_BYTES.get(device.type, CHUNK_BYTES['cuda']) // bytes_of_one)
        return (slice(start, start + step) for start in range(0, slabs, step))

    def _layout(self, points_SHWKD: Tensor) -> tuple[RegionLayout, Tensor]:
        layout = RegionLayout.of(points_SHWKD, (1, self.cols))
        size = layout.height, layout.width
        return layout, pooling_windows(size, self.center_grid, working_dtype(points_SHWKD), points_SHWKD.device)

    def forward(
        self, points_SHWKD: Tensor, values_SHWKD: Tensor, alpha: Tensor, beta: Tensor, mixed_SHWKD: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Fill in the mixed values; return center and cosine of each point, [S, G / S, N]."""
        layout, windows = self._layout(points_SHWKD)
        points_GND, values_GND = (layout.split(x).to(windows.dtype) for x in (points_SHWKD, values_SHWKD))
        mixed, index, cosine = cluster_groups(points_GND, values_GND, alpha, beta, windows, self.denominator)
        layout.join_into(mixed_SHWKD, mixed)
        of_slabs = (layout.batch, -1, mixed.shape[1])
        return index.view(of_slabs), cosine.view(of_slabs)

    def backward(
        self,
        points_SHWKD: Tensor,
        values_SHWKD: Tensor,
        alpha: Tensor,
        beta: Tensor,
        index: Tensor,
        cosine: Tensor,
        grad_SHWKD: Tensor,
        grad_points_SHWKD: Tensor,
        grad_values_SHWKD: Tensor,
        mixed_SHWKD: Tensor | None = None,
    ) -> Tensor:
        """Fill in the gradients of points and values, and what `forward` made; return those of alpha and beta."""
        layout, windows = self._layout(points_SHWKD)
        points_GND, values_GND, grad_GND = (
            layout.split(x).to(windows.dtype) for x in (points_SHWKD, values_SHWKD, grad_SHWKD)
        )
        arguments = alpha, beta, windows, self.denominator, index.flatten(0, 1), cosine.flatten(0, 1)
        if mixed_SHWKD is not None:
            layout.join_into(mixed_SHWKD, mix_again(values_GND, *arguments))
        grad_points, grad_values, grad_scalars = cluster_groups_backward(points_GND, values_GND, *arguments, grad_GND)
        layout.join_into(grad_points_SHWKD, grad_points)
        layout.join_into(grad_values_SHWKD, grad_values)
        return grad_scalars


def cluster_recompute(
    points_BHWKD: Tensor,
    values_BHWKD: Tensor,
    alpha: Tensor,
    beta: Tensor,
    *,
    center_grid: Grid,
    region_grid: Grid,
    denominator: str,
    center_map: None = None,
) -> Tensor:
    """See `coc_core.ops.cluster`; equal to `cluster_matmul` up to rounding. It cannot be differentiated twice.

    Raises:
        ValueError: There is a ``center_map``, whose parameters the backward does not know.
    """
    if center_map is not None:
        raise ValueError("impl='recompute' takes no center_map: choose impl='matmul'.")
    slabs = SlabClustering.of(points_BHWKD, center_grid, region_grid, denominator)
    points, values = (x.reshape(-1, slabs.height, *x.shape[2:]) for x in (points_BHWKD, values_BHWKD))
    mixed: Tensor = _Cluster.apply(points, values, alpha, beta, slabs)  # type: ignore[no-untyped-call]
    return mixed.view(values_BHWKD.shape)


class _Cluster(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, points_SHWKD: Tensor, values_SHWKD: Tensor, alpha: Tensor, beta: Tensor, slabs: SlabClustering
    ) -> Tensor:
        mixed = torch.empty(values_SHWKD.shape, dtype=values_SHWKD.dtype, device=values_SHWKD.device)
        kept = []
        with torch.autocast(points_SHWKD.device.type, enabled=False):
            alpha_, beta_ = (x.to(working_dtype(points_SHWKD)) for x in (alpha, beta))
            for piece in slabs.chunks(*_extent(points_SHWKD, values_SHWKD), points_SHWKD.device):
                kept.append(slabs.forward(points_SHWKD[piece], values_SHWKD[piece], alpha_, beta_, mixed[piece]))
        index, cosine = (torch.cat(parts) for parts in zip(*kept, strict=True)) if kept else (mixed, mixed)
        ctx.save_for_backward(points_SHWKD, values_SHWKD, alpha, beta, index, cosine)
        ctx.slabs = slabs
        return mixed

    @staticmethod
    @outside_autocast
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad_SHWKD: Tensor) -> tuple[Tensor | None, ...]:
        points, values, alpha, beta, index, cosine = ctx.saved_tensors
        slabs: SlabClustering = ctx.slabs
        grad_points, grad_values = (torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in (points, values))
        alpha_, beta_ = (x.to(working_dtype(points)) for x in (alpha, beta))
        grad_scalars = torch.zeros(2, dtype=working_dtype(points), device=points.device)
        for piece in slabs.chunks(*_extent(points, values), points.device):
            grad_scalars += slabs.backward(
                points[piece], values[piece], alpha_, beta_, index[piece], cosine[piece],
                grad_SHWKD[piece], grad_points[piece], grad_values[piece],
            )  # fmt: skip
        grad_alpha, grad_beta = (g.to(x.dtype).view(x.shape) for g, x in zip(grad_scalars, (alpha, beta), strict=True))
        return grad_points, grad_values, grad_alpha, grad_beta, None


def _extent(points_SHWKD: Tensor, values_SHWKD: Tensor) -> tuple[int, int, int]:
    """Slabs, width, and channels of a point and its values."""
    return points_SHWKD.shape[0], points_SHWKD.shape[2], points_SHWKD.shape[-1] + values_SHWKD.shape[-1]
