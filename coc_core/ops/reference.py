"""The clustering operator, literally as the paper states it: slow, hungry for memory, and meant to be read."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from coc_core.ops.common import NORM_EPS, CenterMap, Grid, RegionLayout, pool_centers


def cluster_reference(
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
    """See `coc_core.ops.cluster`; every product of a center with a point is built as a [G, M, N, D] tensor."""
    layout = RegionLayout.of(points_BHWKD, region_grid)
    points_GND, values_GND = layout.split(points_BHWKD), layout.split(values_BHWKD)
    point_centers_GMD = pool_centers(points_GND, layout, center_grid)
    value_centers_GMD = pool_centers(values_GND, layout, center_grid)

    points_unit_GND = F.normalize(points_GND, dim=-1, eps=NORM_EPS)
    centers_unit_GMD = F.normalize(point_centers_GMD, dim=-1, eps=NORM_EPS)
    z_GMN = beta + alpha * (centers_unit_GMD @ points_unit_GND.transpose(1, 2))
    # Each point belongs to one center: the first with the largest z (the sigmoid itself saturates in half precision).
    member_GMN = torch.zeros_like(z_GMN).scatter_(1, z_GMN.argmax(dim=1, keepdim=True), 1.0)
    s_GMN = torch.sigmoid(z_GMN) * member_GMN

    weighted_GMND = s_GMN[..., None] * values_GND[:, None]
    weight_GMN = s_GMN if denominator == 'similarity' else member_GMN
    aggregated_GMD = (value_centers_GMD + weighted_GMND.sum(dim=2)) / (1 + weight_GMN.sum(dim=2)[..., None])
    if center_map is not None:
        aggregated_GMD = center_map(aggregated_GMD)
    dispatched_GMND = s_GMN[..., None] * aggregated_GMD[:, :, None]
    return layout.join(dispatched_GMND.sum(dim=1))
