"""``impl='reference'``: the clustering operator literally as the paper has it: slow, hungry for memory, to be read."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from coc_core.ops.context import widen, without_autocast
from coc_core.ops.regions import NORM_EPS, Grid, Pair, as_pair, region_size


def cluster(
    points_BHWKD: Tensor, values_BHWKD: Tensor, alpha: Tensor, beta: Tensor,
    *, center_grid: Grid, region_grid: Grid, denominator: str,
) -> Tensor:  # fmt: skip
    """See `coc_core.ops.cluster`; every product of a center with a point is built as a [G, M, N, D] tensor."""
    size, (rows, cols) = region_size(points_BHWKD, region_grid), as_pair(region_grid, 'region_grid')
    points_GND, values_GND = (
        rearrange(widen(x), 'b (r h) (c w) k d -> (b r c k) (h w) d', r=rows, c=cols)
        for x in (points_BHWKD, values_BHWKD)
    )
    point_centers_GMD, value_centers_GMD = (_pool(x, size, center_grid) for x in (points_GND, values_GND))

    with without_autocast(points_BHWKD):
        points_unit_GND = F.normalize(points_GND, dim=-1, eps=NORM_EPS)
        centers_unit_GMD = F.normalize(point_centers_GMD, dim=-1, eps=NORM_EPS)
        z_GMN = beta + alpha * (centers_unit_GMD @ points_unit_GND.mT)
    # Each point belongs to one center: the first with the largest z (the sigmoid itself saturates in half precision).
    member_GMN = torch.zeros_like(z_GMN).scatter_(1, z_GMN.argmax(dim=1, keepdim=True), 1.0)
    s_GMN = torch.sigmoid(z_GMN) * member_GMN

    weighted_GMND = s_GMN[..., None] * values_GND[:, None]
    weight_GMN = s_GMN if denominator == 'similarity' else member_GMN
    held_GMD = (value_centers_GMD + weighted_GMND.sum(dim=2)) / (1 + weight_GMN.sum(dim=2)[..., None])
    mixed_GND = (s_GMN[..., None] * held_GMD[:, :, None]).sum(dim=1)
    mixed = rearrange(
        mixed_GND, '(b r c k) (h w) d -> b (r h) (c w) k d', r=rows, c=cols, k=points_BHWKD.shape[3], h=size[0]
    )
    return mixed.to(values_BHWKD.dtype)


def _pool(x_GND: Tensor, size: Pair, center_grid: Grid) -> Tensor:
    """Adaptive average pooling of each region: [G, N, D] -> [G, M, D]."""
    image = rearrange(x_GND, 'g (h w) d -> g d h w', h=size[0])
    return rearrange(F.adaptive_avg_pool2d(image, as_pair(center_grid, 'center_grid')), 'g d r c -> g (r c) d')
