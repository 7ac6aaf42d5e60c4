"""How a map is cut into regions, and a region into the windows that its centers are pooled from.

Shape suffixes, here and in all of `coc_core`: B images; H, W rows and columns of a map; C channels of a map; K heads;
D channels of a head; h, w rows and columns of a region; N = h * w points of a region; M centers of a region;
G = B * regions * K groups, each one head of one region; S strips of a map, one region high, of all images; P positions
of all maps; E hidden channels of the MLP; T partial sums; a digit is an axis of that size. What is mixed may have
other channels than what is compared: they are called D, too, and D' in words.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from coc_core.errors import UserError

Grid = int | tuple[int, int]
Pair = tuple[int, int]

DENOMINATORS = ('similarity', 'count')
NORM_EPS = 1e-12


def check_denominator(denominator: str) -> None:
    """Raise ValueError unless ``denominator`` is a known one."""
    if denominator not in DENOMINATORS:
        raise UserError(f'denominator={denominator!r} is unknown: choose one of {", ".join(DENOMINATORS)}.')


def as_pair(grid: Grid, name: str) -> Pair:
    """Return ``grid`` as (rows, columns).

    Raises:
        UserError: ``grid`` is neither a positive integer nor a pair of them.
    """
    pair = (grid, grid) if isinstance(grid, int) else tuple(grid)
    if len(pair) != 2 or any(type(n) is not int or n < 1 for n in pair):
        raise UserError(f'{name}={grid!r} must be a positive integer or a (rows, columns) pair of them.')
    return pair[0], pair[1]


def region_size(x_BHWKD: Tensor, region_grid: Grid) -> Pair:
    """Return the rows and columns of one region of a map.

    Raises:
        UserError: The tensor is not of rank 5, or its map does not divide into the regions.
    """
    if x_BHWKD.ndim != 5:
        raise UserError(f'points must be [B, H, W, heads, D]; got shape {list(x_BHWKD.shape)}.')
    rows, cols = as_pair(region_grid, 'region_grid')
    height, width = x_BHWKD.shape[1:3]
    if height % rows or width % cols:
        raise UserError(
            f'A map of {height}x{width} points does not divide into {rows}x{cols} regions: pad it first, '
            'or choose another region_grid.'
        )
    return height // rows, width // cols


def window_bounds(i, length, windows):  # type: ignore[no-untyped-def]  # Triton reads annotations.
    """Return the first point of window ``i`` of ``windows`` along ``length`` points, and the first behind it.

    These are the windows of adaptive average pooling: they may overlap, and repeat where there are more of them than
    points. Integers or tensors of them; Triton compiles this function as well.
    """
    return i * length // windows, ((i + 1) * length + windows - 1) // windows


def pooling_windows(size: Pair, center_grid: Grid, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return adaptive average pooling of a region as a matrix: each center's window as weights that sum to one.

    Args:
        size: Rows and columns of the region; N is their product.
        center_grid: Rows and columns of centers; M is their product.
        dtype: Of the result.
        device: Of the result.

    Returns:
        [M, N].
    """
    sides = []
    for length, windows in zip(size, as_pair(center_grid, 'center_grid'), strict=True):
        point_1N, window_M1 = torch.arange(length, device=device)[None], torch.arange(windows, device=device)[:, None]
        start_M1, end_M1 = window_bounds(window_M1, length, windows)  # type: ignore[no-untyped-call]
        inside_MN = (start_M1 <= point_1N) & (point_1N < end_M1)
        sides.append(inside_MN.to(dtype) / (end_M1 - start_M1))
    return torch.kron(*sides)


@lru_cache(maxsize=64)
def cached_windows(size: Pair, center_grid: Grid, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return `pooling_windows`, made once; not for calls that are traced, whose tensors are of that graph."""
    # A tensor made in inference mode could not take part in training later.
    with torch.inference_mode(False):
        return pooling_windows(size, center_grid, dtype, device)
