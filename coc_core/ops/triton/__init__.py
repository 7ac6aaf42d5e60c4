"""``impl='triton'``: the clustering operator as fused GPU kernels, forward and backward.

Nothing of the size of centers times points leaves the chip. A region of up to 512 points is handled by one program,
a larger one is cut into chunks; the size of a region is no part of what is compiled. `operator` registers it with
PyTorch, `trial` finds out whether it runs here, `plan` and `launch` decide how kernels are launched. `whole` and
`chunks` are the kernels of the two forms, made of the same `steps`, which rest on `products` and `maps`. `norm` and
`launch_norm` are the norm's (`coc_core.ops.norm`), `mlp` and `launch_mlp` the MLP's (`coc_core.ops.mlp`). Triton is
imported when a kernel is first launched: without it all else works.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from coc_core.ops.linear import fold_scale
from coc_core.ops.regions import Grid, as_pair, region_size
from coc_core.ops.triton import operator

__all__ = ['cluster', 'mix']


def cluster(points_BHWKD: Tensor, values_BHWKD: Tensor, alpha: Tensor, beta: Tensor, **options: Any) -> Tensor:
    """See `coc_core.ops.cluster`.

    The maps are read through their strides where the channels of a head are adjacent, else copied. The result is dense
    and has the type of the values; it is computed in float32.
    """
    mixed: Tensor = operator.cluster(points_BHWKD, values_BHWKD, alpha, beta, *_plain_options(**options))[0]
    return mixed


def _plain_options(center_grid: Grid, region_grid: Grid, denominator: str) -> tuple[int, int, int, int, bool]:
    """Return what the registered operators take: no pairs."""
    return *as_pair(center_grid, 'center_grid'), *as_pair(region_grid, 'region_grid'), denominator == 'count'


def mix(mixer: Any, x_BHWC: Tensor, scale: Tensor | None = None) -> Tensor:
    """Return what a stock `coc_core.layers.ClusterMixer` makes of a map, times ``scale`` [C] where there is one."""
    weight, bias, scale = fold_scale(mixer.proj, scale, x_BHWC)
    both = rearrange(mixer.points_values(x_BHWC), 'b h w (two k d) -> b h w two k d', two=2, k=mixer.heads)
    region_size(both[:, :, :, 0], mixer.region_grid)
    options = _plain_options(mixer.center_grid, mixer.region_grid, mixer.denominator)
    mixed_BHWKD = operator.cluster_packed(both, mixer.sim_alpha, mixer.sim_beta, *options)[0]
    out = F.linear(rearrange(mixed_BHWKD, 'b h w k d -> b h w (k d)'), weight, bias)
    return out if scale is None else scale * out
