"""What every implementation of the clustering operator shares: argument checks, regions, center windows.

Shape suffixes: B images, H and W rows and columns of the map, K heads, D channels of a head, G = B * regions * K
groups, N = h * w points of a region, M centers of a region.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import Parameter

Grid = int | tuple[int, int]
CenterMap = Callable[[Tensor], Tensor]

HALF = (torch.float16, torch.bfloat16)
DENOMINATORS = ('similarity', 'count')
NORM_EPS = 1e-12


def working_dtype(x: Tensor) -> torch.dtype:
    """Return the precision that is computed in: float32 for half precision, else the tensor's own."""
    return torch.float32 if x.dtype in HALF else x.dtype


def is_traced(x: Tensor) -> bool:
    """Return whether a graph is being made of ``x``, or it is no plain tensor: then plain operators are wanted."""
    tracing: bool = torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
    return tracing or torch.compiler.is_compiling() or type(x) not in (Tensor, Parameter)


def cast_to_autocast(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Return the tensors in the precision of autocast, where that is on for their device."""
    device = tensors[0].device.type
    if not torch.is_autocast_enabled(device) or tensors[0].dtype == torch.float64:
        return tensors
    dtype = torch.get_autocast_dtype(device)
    return tuple(t.to(dtype) for t in tensors)


def outside_autocast(backward: Callable[..., Any]) -> Any:
    """Decorate the backward of an autograd function: it computes in the precision of what it kept."""

    @wraps(backward)
    def wrapped(ctx: Any, grad: Tensor) -> Any:
        with torch.autocast(grad.device.type, enabled=False):
            return backward(ctx, grad)

    return wrapped


def add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """Add ``left @ right`` to ``total``, which may be of higher precision."""
    if total.dtype == left.dtype:
        total.addmm_(left, right)
    else:
        total += left @ right


def as_pair(grid: Grid, name: str) -> tuple[int, int]:
    """Return ``grid`` as (rows, columns).

    Raises:
        ValueError: ``grid`` is neither a positive integer nor a pair of them.
    """
    pair = (grid, grid) if isinstance(grid, int) else tuple(grid)
    if len(pair) != 2 or any(type(n) is not int or n < 1 for n in pair):
        raise ValueError(f'{name}={grid!r} must be a positive integer or a (rows, columns) pair of them.')
    return pair[0], pair[1]


@dataclass(frozen=True)
class RegionLayout:
    """How a [B, H, W, K, D] map is cut into equal regions, and back: `split` and `join` are inverse to each other."""

    batch: int
    heads: int
    region_rows: int
    region_cols: int
    height: int
    width: int

    @classmethod
    def of(cls, points_BHWKD: Tensor, region_grid: Grid) -> RegionLayout:
        """Return the layout of a map.

        Raises:
            ValueError: The tensor is not of rank 5, or its map does not divide into the regions.
        """
        if points_BHWKD.ndim != 5:
            raise ValueError(f'points must be [B, H, W, heads, D]; got shape {list(points_BHWKD.shape)}.')
        rows, cols = as_pair(region_grid, 'region_grid')
        batch, height, width, heads, _ = points_BHWKD.shape
        if height % rows or width % cols:
            raise ValueError(
                f'A map of {height}x{width} points does not divide into {rows}x{cols} regions: pad it first, '
                'or choose another region_grid.'
            )
        return cls(batch, heads, rows, cols, height // rows, width // cols)

    def split(self, x_BHWKD: Tensor) -> Tensor:
        """[B, H, W, K, D] -> [G, N, D]."""
        b, r, c, h, w, k = self.batch, self.region_rows, self.region_cols, self.height, self.width, self.heads
        x = x_BHWKD.reshape(b, r, h, c, w, k, x_BHWKD.shape[-1])
        return x.permute(0, 1, 3, 5, 2, 4, 6).reshape(b * r * c * k, h * w, x_BHWKD.shape[-1])

    def join(self, x_GND: Tensor) -> Tensor:
        """[G, N, D] -> [B, H, W, K, D]."""
        b, r, c, h, w, k = self.batch, self.region_rows, self.region_cols, self.height, self.width, self.heads
        return self._in_order(x_GND).reshape(b, r * h, c * w, k, x_GND.shape[-1])

    def join_into(self, target_BHWKD: Tensor, x_GND: Tensor) -> None:
        """`join` into memory that is there, of any strides and dtype."""
        r, c, h, w = self.region_rows, self.region_cols, self.height, self.width
        # Views, as these two dimensions are cut.
        rows = target_BHWKD.unflatten(2, (c, w)).unflatten(1, (r, h))  # type: ignore[no-untyped-call]
        rows.copy_(self._in_order(x_GND))

    def _in_order(self, x_GND: Tensor) -> Tensor:
        """[G, N, D] -> [B, rows of regions, h, columns of regions, w, K, D], a view."""
        b, r, c, h, w, k = self.batch, self.region_rows, self.region_cols, self.height, self.width, self.heads
        return x_GND.reshape(b, r, c, k, h, w, x_GND.shape[-1]).permute(0, 1, 4, 2, 5, 3, 6)


def pool_centers(x_GND: Tensor, layout: RegionLayout, center_grid: Grid) -> Tensor:
    """Adaptive average pooling of the points of each region: [G, N, D] -> [G, M, D].

    Window i of P along a side of n points covers floor(i n / P) ... ceil((i + 1) n / P): windows may overlap, and
    they repeat where there are more centers than points.
    """
    rows, cols = as_pair(center_grid, 'center_grid')
    groups, _, dim = x_GND.shape
    h, w = layout.height, layout.width
    if h % rows == 0 and w % cols == 0:
        x = x_GND.reshape(groups, rows, h // rows, cols, w // cols, dim).mean(dim=(2, 4))
        return x.reshape(groups, rows * cols, dim)
    image = x_GND.reshape(groups, h, w, dim).permute(0, 3, 1, 2)
    return F.adaptive_avg_pool2d(image, (rows, cols)).permute(0, 2, 3, 1).reshape(groups, rows * cols, dim)


def check_denominator(denominator: str) -> None:
    """Raise ValueError unless ``denominator`` is a known one."""
    if denominator not in DENOMINATORS:
        raise ValueError(f'denominator={denominator!r} is unknown: choose one of {", ".join(DENOMINATORS)}.')


def similarity_logits(points_GND: Tensor, centers_GMD: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
    """Return z = beta + alpha * cos(center, point) as [G, M, N], without a normalised copy of the points."""
    lengths_G1N = torch.linalg.vector_norm(points_GND, dim=-1).clamp_min(NORM_EPS)[:, None]
    centers = alpha * F.normalize(centers_GMD, dim=-1, eps=NORM_EPS)
    z_GMN: Tensor = beta + (centers @ points_GND.transpose(-2, -1)) / lengths_G1N
    return z_GMN
