"""The layers of Context Cluster, all on channels-last maps [B, H, W, C]."""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from timm.layers import DropPath, Mlp, trunc_normal_
from torch import Tensor, nn

from coc_core.ops import cluster_packed
from coc_core.ops.common import is_traced
from coc_core.ops.map_norm import map_norm
from coc_core.ops.mixer import mix
from coc_core.ops.mlp import mlp


class MapNorm(nn.GroupNorm):
    """GroupNorm with one group over a channels-last map: every sample is normalised over H, W and C together."""

    def __init__(self, dim: int) -> None:
        super().__init__(num_groups=1, num_channels=dim, eps=1e-5)

    def forward(self, x: Tensor) -> Tensor:
        """[B, H, W, C] -> [B, H, W, C]."""
        if x.is_cuda and not is_traced(x):
            return map_norm(x, self.weight, self.bias, self.eps)
        if torch.is_grad_enabled() and not x.requires_grad:
            # PyTorch 2.13's channels-last kernel crashes in backward when its input needs no gradient (frozen stages).
            x = x.detach().requires_grad_()
        return to_channels_last(super().forward(to_channels_first(x)))


class ClusterMixer(nn.Module):
    """The clustering layer: mixes the points of each region within their clusters (paper, section 3.2).

    Args:
        dim: Channels of the map.
        heads: Heads, clustered independently.
        head_dim: Channels of one head.
        center_grid: Centers along each side of a region.
        region_grid: Regions along each side of the map.
        denominator: See `coc_core.ops.cluster`.
        impl: See `coc_core.ops.cluster`.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        head_dim: int,
        *,
        center_grid: int,
        region_grid: int,
        denominator: str = 'similarity',
        impl: str = 'auto',
    ) -> None:
        super().__init__()
        self.heads = heads
        self.head_dim = head_dim
        self.center_grid = center_grid
        self.region_grid = region_grid
        self.denominator = denominator
        self.impl = impl
        # One projection for both: the features that are compared come first, the values that are mixed second.
        self.points_values = nn.Linear(dim, 2 * heads * head_dim)
        self.sim_alpha = nn.Parameter(torch.ones(1))
        self.sim_beta = nn.Parameter(torch.zeros(1))
        self.proj = nn.Linear(heads * head_dim, dim)

    def project(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """[B, H, W, C] -> points that are compared and values that are mixed, each [B, H, W, heads, head_dim]."""
        points, values = self._project(x).unbind(dim=3)
        return points, values

    def _project(self, x: Tensor) -> Tensor:
        both: Tensor = self.points_values(x)
        return both.view(*x.shape[:-1], 2, self.heads, self.head_dim)

    def forward(self, x: Tensor, scale: Tensor | None = None) -> Tensor:
        """[B, H, W, C] -> [B, H, W, C], multiplied by ``scale`` [C] where there is one."""
        out_weight, out_bias, scale = fold_scale(self.proj, scale, x)
        if self.impl == 'auto' and x.device.type == 'cpu' and not is_traced(x):
            mixed = mix(
                x,
                self.points_values.weight,
                self.points_values.bias,
                out_weight,
                out_bias,
                self.sim_alpha,
                self.sim_beta,
                heads=self.heads,
                center_grid=self.center_grid,
                region_grid=self.region_grid,
                denominator=self.denominator,
            )
        else:
            clustered = cluster_packed(
                self._project(x),
                self.sim_alpha,
                self.sim_beta,
                center_grid=self.center_grid,
                region_grid=self.region_grid,
                denominator=self.denominator,
                impl=self.impl,
            )
            mixed = F.linear(clustered.flatten(start_dim=3), out_weight, out_bias)
        return mixed if scale is None else scale * mixed

    def extra_repr(self) -> str:
        """Shown by ``print(model)``."""
        return (
            f'heads={self.heads}, head_dim={self.head_dim}, center_grid={self.center_grid}, '
            f'region_grid={self.region_grid}, denominator={self.denominator!r}, impl={self.impl!r}'
        )


class RowwiseMlp(Mlp):  # type: ignore[misc]
    """Linear, GELU, Linear at each position: timm's layer, computed by `coc_core.ops.mlp`."""

    def forward(self, x: Tensor, scale: Tensor | None = None) -> Tensor:
        """[..., C] -> [..., C], multiplied by ``scale`` [C] where there is one."""
        weight, bias, scale = fold_scale(self.fc2, scale, x)
        out = mlp(x, self.fc1.weight, self.fc1.bias, weight, bias)
        return out if scale is None else scale * out


def fold_scale(linear: nn.Linear, scale: Tensor | None, x: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return weight and bias of ``scale * linear(...)``, and the scale where it is left to be multiplied by.

    Folding saves a pass over the map, and in training a copy of it, for one over the weight: worth it where the map
    ``x`` [..., C] has more positions than the layer has inputs. A layer scale of 1e-5 times a weight of 0.02 is less
    than float16 holds.
    """
    device = x.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else linear.weight.dtype
    if scale is None or dtype == torch.float16 or is_traced(x) or x.shape[:-1].numel() < linear.in_features:
        return linear.weight, linear.bias, scale
    return scale[:, None] * linear.weight, scale * linear.bias, None


class ContextClusterBlock(nn.Module):
    """x + gamma1 * mixer(norm1(x)), then x + gamma2 * mlp(norm2(x)), each with stochastic depth.

    Args:
        dim: Channels of the map.
        mixer: Called with a map [B, H, W, C] and the layer scale [C]; returns the scaled result, of the map's shape.
        mlp_ratio: Hidden width of the MLP divided by ``dim``.
        layer_scale_init: Initial value of gamma1 and gamma2.
        drop_path: Probability that a branch is dropped for a sample in training.
    """

    def __init__(
        self, dim: int, mixer: nn.Module, *, mlp_ratio: float, layer_scale_init: float, drop_path: float
    ) -> None:
        super().__init__()
        self.norm1 = MapNorm(dim)
        self.mixer = mixer
        self.gamma1 = nn.Parameter(torch.full((dim,), float(layer_scale_init)))
        self.norm2 = MapNorm(dim)
        self.mlp = RowwiseMlp(dim, int(dim * mlp_ratio))
        self.gamma2 = nn.Parameter(torch.full((dim,), float(layer_scale_init)))
        self.drop_path = DropPath(drop_path) if drop_path > 0 else nn.Identity()
        for linear in (self.mlp.fc1, self.mlp.fc2):
            init_linear(linear)

    def forward(self, x: Tensor) -> Tensor:
        """[B, H, W, C] -> [B, H, W, C]."""
        x = x + self.drop_path(self.mixer(self.norm1(x), self.gamma1))
        out: Tensor = x + self.drop_path(self.mlp(self.norm2(x), self.gamma2))
        return out


def init_linear(linear: nn.Linear) -> None:
    """Truncated normal weights of standard deviation 0.02 and zero biases (the published initialisation)."""
    trunc_normal_(linear.weight, std=0.02)
    nn.init.zeros_(linear.bias)


def to_channels_first(x_BHWC: Tensor) -> Tensor:
    """[B, H, W, C] -> [B, C, H, W], a view."""
    return x_BHWC.permute(0, 3, 1, 2)


def to_channels_last(x_BCHW: Tensor) -> Tensor:
    """[B, C, H, W] -> [B, H, W, C], a view."""
    return x_BCHW.permute(0, 2, 3, 1)


def append_coordinates(images: Tensor) -> Tensor:
    """Append each pixel's row / (H - 1) - 0.5 and column / (W - 1) - 0.5: [B, C, H, W] -> [B, C + 2, H, W]."""
    batch, _, height, width = images.shape
    make = _coordinates if is_traced(images) else _cached_coordinates
    grid = make(height, width, images.dtype, images.device)
    return torch.cat([images, grid.expand(batch, 2, height, width)], dim=1)


def _coordinates(height: int, width: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    # Half precision cannot count the pixels of a large image.
    exact = torch.float64 if dtype == torch.float64 else torch.float32
    rows = torch.arange(height, device=device, dtype=exact) / (height - 1) - 0.5
    cols = torch.arange(width, device=device, dtype=exact) / (width - 1) - 0.5
    return torch.stack([rows[:, None].expand(-1, width), cols.expand(height, -1)]).to(dtype)


@lru_cache(maxsize=8)
def _cached_coordinates(height: int, width: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    # A tensor made in inference mode could not take part in training later.
    with torch.inference_mode(False):
        return _coordinates(height, width, dtype, device)


def pad_to_multiple(images: Tensor, divisor: int) -> Tensor:
    """Zero-pad [B, C, H, W] at the bottom and right to multiples of ``divisor``; sizes that divide are untouched."""
    height, width = images.shape[-2:]
    bottom, right = -height % divisor, -width % divisor
    return F.pad(images, (0, right, 0, bottom)) if bottom or right else images
