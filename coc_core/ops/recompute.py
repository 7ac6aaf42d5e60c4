"""The clustering operator with a backward of its own, which keeps little more than the inputs for itself.

Of a point only its center and its cosine are kept, of a center what it holds; whatever is as large as centers times
points, and every copy of the map in another order, is made again.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from coc_core.ops.common import NORM_EPS, Grid, RegionLayout, as_pair, pool_centers, working_dtype


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
    arguments = points_BHWKD, values_BHWKD, alpha, beta, center_grid, region_grid, denominator
    mixed: Tensor = _Cluster.apply(*arguments)  # type: ignore[no-untyped-call]
    return mixed


class _Cluster(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        points_BHWKD: Tensor,
        values_BHWKD: Tensor,
        alpha: Tensor,
        beta: Tensor,
        center_grid: Grid,
        region_grid: Grid,
        denominator: str,
    ) -> Tensor:
        layout, dtype = RegionLayout.of(points_BHWKD, region_grid), working_dtype(points_BHWKD)
        with torch.autocast(points_BHWKD.device.type, enabled=False):
            points_GND, values_GND = (layout.split(x).to(dtype) for x in (points_BHWKD, values_BHWKD))
            centers_GMD, _ = _unit(pool_centers(points_GND, layout, center_grid))
            lengths_G1N = _lengths(points_GND)[:, None].clamp_min(NORM_EPS)
            # The sign and scale of alpha decide which center is the largest, as in z itself.
            z_GMN = beta.to(dtype) + (alpha.to(dtype) * centers_GMD @ points_GND.transpose(1, 2)) / lengths_G1N
            largest_G1N, center_G1N = z_GMN.max(dim=1, keepdim=True)
            s_G1N = torch.sigmoid(largest_G1N)
            s_GMN = _spread(s_G1N, center_G1N, z_GMN)
            weight_GM1 = _weights(s_GMN, center_G1N, denominator)
            held_GMD = (pool_centers(values_GND, layout, center_grid) + s_GMN @ values_GND) / weight_GM1
            mixed_GND = s_GMN.transpose(1, 2) @ held_GMD
        index = center_G1N.to(torch.uint8 if z_GMN.shape[1] <= 256 else torch.int32)
        ctx.save_for_backward(points_BHWKD, values_BHWKD, alpha, beta, index, s_G1N, weight_GM1, held_GMD)
        ctx.options = layout, center_grid, denominator
        return layout.join(mixed_GND.to(values_BHWKD.dtype))

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad_BHWKD: Tensor) -> tuple[Tensor | None, ...]:
        points_BHWKD, values_BHWKD, alpha, beta, index, s_G1N, weight_GM1, held_GMD = ctx.saved_tensors
        layout, center_grid, denominator = ctx.options
        dtype = working_dtype(points_BHWKD)
        with torch.autocast(points_BHWKD.device.type, enabled=False):
            center_G1N = index.long()
            grad_GND = layout.split(grad_BHWKD).to(dtype)
            values_GND = layout.split(values_BHWKD).to(dtype)
            like_GMN = held_GMD.new_zeros(()).expand(*held_GMD.shape[:2], s_G1N.shape[2])
            s_GMN = _spread(s_G1N, center_G1N, like_GMN)
            grad_sum_GMD = (s_GMN @ grad_GND) / weight_GM1
            grad_s_G1N = (held_GMD @ grad_GND.transpose(1, 2)).gather(1, center_G1N)
            grad_s_G1N += (grad_sum_GMD @ values_GND.transpose(1, 2)).gather(1, center_G1N)
            if denominator == 'similarity':
                grad_weight_GM1 = -(grad_sum_GMD * held_GMD).sum(dim=2, keepdim=True)
                grad_s_G1N += grad_weight_GM1.expand(like_GMN.shape).gather(1, center_G1N)
            grad_values_GND = s_GMN.transpose(1, 2) @ grad_sum_GMD
            grad_values_GND += _pool_gradient(grad_sum_GMD, values_GND, layout, center_grid)
            grad_values = layout.join(grad_values_GND.to(values_BHWKD.dtype))
            del grad_GND, values_GND, grad_values_GND, s_GMN

            grad_z_G1N = grad_s_G1N * s_G1N * (1 - s_G1N)
            points_GND = layout.split(points_BHWKD).to(dtype)
            grad_points_GND, cosine_G1N = _points_gradient(
                points_GND, alpha.to(dtype) * grad_z_G1N, center_G1N, like_GMN, layout, center_grid
            )
            grad_alpha = (grad_z_G1N * cosine_G1N).sum().reshape(alpha.shape).to(alpha.dtype)
            grad_beta = grad_z_G1N.sum().reshape(beta.shape).to(beta.dtype)
            grad_points = layout.join(grad_points_GND.to(points_BHWKD.dtype))
        return grad_points, grad_values, grad_alpha, grad_beta, None, None, None


def _points_gradient(
    points_GND: Tensor,
    grad_cosine_G1N: Tensor,
    center_G1N: Tensor,
    like_GMN: Tensor,
    layout: RegionLayout,
    center_grid: Grid,
) -> tuple[Tensor, Tensor]:
    """The gradient of each point's cosine with its center, and that cosine."""
    centers_GMD, center_lengths_GM1 = _unit(pool_centers(points_GND, layout, center_grid))
    exact_GN = _lengths(points_GND)
    lengths_G1N = exact_GN.clamp_min(NORM_EPS)[:, None]
    cosine_G1N = (centers_GMD @ points_GND.transpose(1, 2)).gather(1, center_G1N) / lengths_G1N
    scaled_G1N = grad_cosine_G1N / lengths_G1N
    scaled_GMN = _spread(scaled_G1N, center_G1N, like_GMN)
    # A vector shorter than eps is divided by eps: its length has no gradient.
    along_G1N = scaled_G1N * cosine_G1N / lengths_G1N * (exact_GN >= NORM_EPS)[:, None]
    grad_points_GND = scaled_GMN.transpose(1, 2) @ centers_GMD - along_G1N.transpose(1, 2) * points_GND
    grad_unit_GMD = scaled_GMN @ points_GND
    along_GM1 = (grad_unit_GMD * centers_GMD).sum(dim=2, keepdim=True) * (center_lengths_GM1 >= NORM_EPS)
    grad_centers_GMD = (grad_unit_GMD - along_GM1 * centers_GMD) / center_lengths_GM1.clamp_min(NORM_EPS)
    grad_points_GND += _pool_gradient(grad_centers_GMD, points_GND, layout, center_grid)
    return grad_points_GND, cosine_G1N


def _lengths(x_GND: Tensor) -> Tensor:
    lengths: Tensor = torch.linalg.vector_norm(x_GND, dim=-1)
    return lengths


def _unit(centers_GMD: Tensor) -> tuple[Tensor, Tensor]:
    """Centers of length one, and their lengths before, [G, M, 1]."""
    lengths_GM1 = _lengths(centers_GMD)[..., None]
    return centers_GMD / lengths_GM1.clamp_min(NORM_EPS), lengths_GM1


def _spread(x_G1N: Tensor, center_G1N: Tensor, like_GMN: Tensor) -> Tensor:
    """Each point's number at its center, zero at the others: [G, M, N]."""
    return x_G1N.new_zeros(like_GMN.shape).scatter_(1, center_G1N, x_G1N)


def _weights(s_GMN: Tensor, center_G1N: Tensor, denominator: str) -> Tensor:
    """What a center's sum is divided by, [G, M, 1]."""
    if denominator == 'count':
        s_GMN = torch.zeros_like(s_GMN).scatter_(1, center_G1N, 1.0)
    return 1 + s_GMN.sum(dim=2, keepdim=True)


def _pool_gradient(grad_GMD: Tensor, like_GND: Tensor, layout: RegionLayout, center_grid: Grid) -> Tensor:
    """The backward of `pool_centers`: [G, M, D] -> [G, N, D]."""
    rows, cols = as_pair(center_grid, 'center_grid')
    groups, _, dim = grad_GMD.shape
    h, w = layout.height, layout.width
    if h % rows == 0 and w % cols == 0:
        each = grad_GMD.reshape(groups, rows, 1, cols, 1, dim) * (rows * cols / (h * w))
        spread: Tensor = each.expand(groups, rows, h // rows, cols, w // cols, dim).reshape(groups, h * w, dim)
        return spread
    grad_image = grad_GMD.reshape(groups, rows, cols, dim).permute(0, 3, 1, 2)
    image = like_GND.reshape(groups, h, w, dim).permute(0, 3, 1, 2)
    gradient = torch.ops.aten._adaptive_avg_pool2d_backward(grad_image, image)
    spread = gradient.permute(0, 2, 3, 1).reshape(groups, h * w, dim)
    return spread
