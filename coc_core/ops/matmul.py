"""The clustering operator with both sums as matrix products: no [G, M, N, D] tensor is built."""

from __future__ import annotations

import torch
from torch import Tensor

from coc_core.ops.common import CenterMap, Grid, RegionLayout, pool_centers, similarity_logits


def cluster_matmul(
    points_BHWKD: Tensor,
    values_BHWKD: Tensor,
    alpha: Tensor,
    beta: Tensor,
    *,
    center_grid: Grid,
    region_grid: Grid,
    denominator: str,
    center_map: CenterMap | None = None,
) -> Tensor:
    """See `coc_core.ops.cluster`; equal to `cluster_reference` up to rounding."""
    layout = RegionLayout.of(points_BHWKD, region_grid)
    points_GND, values_GND = layout.split(points_BHWKD), layout.split(values_BHWKD)
    point_centers_GMD = pool_centers(points_GND, layout, center_grid)
    value_centers_GMD = pool_centers(values_GND, layout, center_grid)

    z_GMN = similarity_logits(points_GND, point_centers_GMD, alpha, beta)
    largest_G1N, center_G1N = z_GMN.max(dim=1, keepdim=True)
    s_GMN = torch.zeros_like(z_GMN).scatter(1, center_G1N, torch.sigmoid(largest_G1N))
    if denominator == 'similarity':
        weight_GM1 = s_GMN.sum(dim=2, keepdim=True)
    else:
        weight_GM1 = torch.zeros_like(z_GMN).scatter(1, center_G1N, 1.0).sum(dim=2, keepdim=True)
    aggregated_GMD = (value_centers_GMD + s_GMN @ values_GND) / (1 + weight_GM1)
    if center_map is not None:
        aggregated_GMD = center_map(aggregated_GMD)
    return layout.join(s_GMN.transpose(1, 2) @ aggregated_GMD)
