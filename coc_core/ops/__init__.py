"""The clustering operator: `cluster` mixes values within clusters of points, `assign` tells who is in which."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from coc_core.ops.common import (
    HALF,
    CenterMap,
    Grid,
    RegionLayout,
    as_pair,
    check_denominator,
    is_traced,
    pool_centers,
    similarity_logits,
)
from coc_core.ops.matmul import cluster_matmul
from coc_core.ops.recompute import cluster_recompute
from coc_core.ops.reference import cluster_reference
from coc_core.ops.triton_kernels import cluster_packed_triton, cluster_triton, triton_available

__all__ = ['IMPLEMENTATIONS', 'assign', 'check_denominator', 'check_impl', 'cluster', 'cluster_packed']

IMPLEMENTATIONS: dict[str, Callable[..., Tensor]] = {
    'reference': cluster_reference,
    'matmul': cluster_matmul,
    'recompute': cluster_recompute,
    'triton': cluster_triton,
}


def check_impl(impl: str) -> None:
    """Raise ValueError unless ``impl`` is ``'auto'`` or the name of an implementation."""
    if impl != 'auto' and impl not in IMPLEMENTATIONS:
        raise ValueError(f'impl={impl!r} is unknown: choose one of auto, {", ".join(IMPLEMENTATIONS)}.')


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
    center_map: CenterMap | None = None,
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
        impl: ``'reference'`` (literal), ``'matmul'`` (fast, plain operators), ``'recompute'`` (a few regions at a
            time, and little kept for backward; without ``center_map``), ``'triton'`` (fused kernels for a GPU, float32
            and half precision, without ``center_map``), or ``'auto'``: ``'triton'`` where it can be, ``'recompute'``
            on a CPU, and ``'matmul'`` where neither can, or a graph is traced on a CPU.
        center_map: Applied to what the centers hold, [..., D'] -> [..., D''], before it is handed back. A center
            holds a weighted mean: an affine map of all values may as well be applied to the centers alone, which are
            fewer; and so may a linear map of the output.

    Returns:
        A tensor like ``values``, [B, H, W, heads, D'], or D'' channels.

    Raises:
        ValueError: Shapes do not go together, the map does not divide into regions, or a name is unknown.
    """
    if points.shape[:-1] != values.shape[:-1]:
        raise ValueError(f'points {list(points.shape)} and values {list(values.shape)} must be maps of the same size.')
    check_denominator(denominator)
    check_impl(impl)
    options: dict[str, Any] = {'center_grid': center_grid, 'region_grid': region_grid, 'denominator': denominator}
    impl = _choose(points, values.shape[-1], center_grid, center_map) if impl == 'auto' else impl
    implementation = IMPLEMENTATIONS[impl]
    if impl in ('recompute', 'triton'):
        # They read half-precision inputs as they are.
        return implementation(points, values, alpha, beta, **options, center_map=center_map)
    if points.dtype in HALF:
        options['center_map'] = _as_outside(center_map, values)
        with torch.autocast(points.device.type, enabled=False):
            mixed = implementation(points.float(), values.float(), alpha.float(), beta.float(), **options)
        return mixed.to(values.dtype)
    return implementation(points, values, alpha, beta, **options, center_map=center_map)


def cluster_packed(
    points_values: Tensor,
    alpha: Tensor,
    beta: Tensor,
    *,
    center_grid: Grid,
    region_grid: Grid,
    denominator: str = 'similarity',
    impl: str = 'auto',
) -> Tensor:
    """As `cluster`, for points and values in one tensor, which need not be taken apart, nor its gradient joined.

    Args:
        points_values: [B, H, W, 2, heads, D], the points first, the values second.
        alpha: As in `cluster`.
        beta: As in `cluster`.
        center_grid: As in `cluster`.
        region_grid: As in `cluster`.
        denominator: As in `cluster`.
        impl: As in `cluster`.

    Returns:
        [B, H, W, heads, D].

    Raises:
        ValueError: See `cluster`.
    """
    check_impl(impl)
    dim = points_values.shape[-1]
    impl = _choose(points_values, dim, center_grid, None) if impl == 'auto' else impl
    options: dict[str, Any] = {'center_grid': center_grid, 'region_grid': region_grid, 'denominator': denominator}
    if impl == 'triton':
        return cluster_packed_triton(points_values, alpha, beta, **options)
    points, values = points_values.unbind(dim=3)
    return cluster(points, values, alpha, beta, **options, impl=impl)


def _choose(points: Tensor, values_dim: int, center_grid: Grid, center_map: CenterMap | None) -> str:
    """The implementation that ``'auto'`` stands for, by device and sizes."""
    rows, cols = as_pair(center_grid, 'center_grid')
    if center_map is None and triton_available(points, values_dim, rows * cols):
        return 'triton'
    return 'recompute' if center_map is None and points.device.type == 'cpu' and not is_traced(points) else 'matmul'


def _as_outside(center_map: CenterMap | None, values: Tensor) -> CenterMap | None:
    """The map in the precision of its caller, on centers in float32."""
    if center_map is None:
        return None
    device, autocast = values.device.type, torch.is_autocast_enabled(values.device.type)

    def mapped(centers: Tensor) -> Tensor:
        with torch.autocast(device, dtype=values.dtype, enabled=autocast):
            return center_map(centers.to(values.dtype)).float()

    return mapped


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
        ValueError: ``points`` is not of rank 5 or does not divide into regions.
    """
    layout = RegionLayout.of(points, region_grid)
    points_GND = layout.split(points.float() if points.dtype in HALF else points)
    with torch.autocast(points.device.type, enabled=False):
        centers_GMD = pool_centers(points_GND, layout, center_grid)
        z_GMN = similarity_logits(points_GND, centers_GMD, alpha.to(points_GND.dtype), beta.to(points_GND.dtype))
    return layout.join(z_GMN.argmax(dim=1)[..., None]).squeeze(-1)
