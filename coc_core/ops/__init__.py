"""The clustering operator: `cluster` mixes values within clusters of points, `assign` tells who is in which.

`dispatch` decides which code runs, `explain` tells it. `plain` and `reference` are to be read; `cpu` and `triton` are
fast and compute the same.
"""

from __future__ import annotations

import torch
from torch import Tensor

from coc_core.errors import UserError
from coc_core.ops import plain
from coc_core.ops.context import traced_by
from coc_core.ops.dispatch import Call, check_impl, implementations, serve
from coc_core.ops.explanation import explain, set_implementation
from coc_core.ops.regions import Grid, as_pair, check_denominator, region_size
from coc_core.ops.triton import launch, trial

__all__ = [
    'assign', 'check_denominator', 'check_impl', 'cluster', 'explain', 'implementations', 'set_implementation',
]  # fmt: skip


def cluster(
    points: Tensor,
    values: Tensor,
    alpha: Tensor,
    beta: Tensor,
    *,
    center_grid: Grid,
    region_grid: Grid,
    denominator: str = 'similarity',
    impl: str = 'auto',
) -> Tensor:
    """Aggregate the values of each cluster into its center and hand them back to its points (paper, eq. 1-3).

    The map is cut into equal regions. Centers are average-pooled points (for features and values alike); each point
    joins the center with the largest z = beta + alpha * cos(center, point), the first on a tie, with the weight
    s = sigmoid(z). A center holds A = (its pooled value + sum of s * value) / (1 + sum of s) and each of its points
    receives s * A.

    Args:
        points: Features that are compared, floating, [B, H, W, heads, D], any strides. Half precision is computed
            in float32, where neither a sum over a region nor the norm of a small vector loses its meaning.
        values: Features that are mixed, [B, H, W, heads, D'], dtype as ``points``.
        alpha: Scale of the similarity, one element.
        beta: Shift of the similarity, one element.
        center_grid: Centers in a region, an int or (rows, columns).
        region_grid: Regions in the map, an int or (rows, columns); must divide H and W.
        denominator: ``'similarity'`` as above; ``'count'`` divides by 1 + the number of points of the cluster, as
            the weights published in March 2023 need it.
        impl: ``'plain'`` (the steps of `coc_core.layers.ClusterMixer`; differentiable any number of times),
            ``'reference'`` (literally as published), ``'cpu'`` (a few regions at a time, and little kept for
            backward), ``'triton'`` (fused kernels for a GPU, float32 and half precision), or ``'auto'``: what
            `coc_core.ops.dispatch.TABLE` has first for the call.

    Returns:
        A tensor like ``values``, [B, H, W, heads, D'].

    Raises:
        UserError: Shapes do not go together, the map does not divide into regions, a name is unknown, or the
            implementation that was named does not take the call.
    """
    if points.shape[:-1] != values.shape[:-1]:
        raise UserError(f'points {list(points.shape)} and values {list(values.shape)} must be maps of the same size.')
    if points.dtype != values.dtype:
        raise UserError(f'points are {points.dtype} and values {values.dtype}: they must have one type.')
    check_denominator(denominator)
    check_impl(impl)
    region_size(points, region_grid)
    regions = as_pair(region_grid, 'region_grid')
    rows, cols = as_pair(center_grid, 'center_grid')
    dim = max(points.shape[-1], values.shape[-1])
    call = Call(points.device.type, points.dtype, traced_by(points), rows * cols, dim)

    def kind() -> trial.Kind:
        problem = launch.problem_of(points, values, (rows, cols), regions, denominator == 'count')
        return trial.kind_of(problem, points.dtype)

    row, _ = serve('cluster', impl, call, points.device, kind)
    return row.function(
        points, values, alpha, beta, center_grid=center_grid, region_grid=region_grid, denominator=denominator
    )


@torch.no_grad()
def assign(points: Tensor, alpha: Tensor, beta: Tensor, *, center_grid: Grid, region_grid: Grid) -> Tensor:
    """Return the center that each point belongs to.

    Args:
        points: As in `cluster`, [B, H, W, heads, D].
        alpha: As in `cluster`.
        beta: As in `cluster`.
        center_grid: As in `cluster`.
        region_grid: As in `cluster`.

    Returns:
        int64 [B, H, W, heads]: index of the center within the point's region, row by row from 0.

    Raises:
        UserError: ``points`` is not of rank 5 or does not divide into regions.
    """
    steps = plain.steps(alpha, beta, center_grid=center_grid, region_grid=region_grid)
    return steps.find_clusters(points).center
