"""`impl='triton'`: the clustering operator as fused GPU kernels, forward and backward.

Nothing of the size of centers times points leaves the chip. A region of some hundred points is handled by one
program, which reads every input once; a larger one is cut into chunks, and f and v are then read twice at most.
`operator` registers it with PyTorch, `launch` and `plan` decide how kernels are launched, `forward` and `backward`
are the kernels. Triton is imported when a kernel is first launched: without it all else works.
"""

from __future__ import annotations

import importlib.util

import torch
from torch import Tensor

from coc_core.ops.common import Grid, RegionLayout, as_pair, check_denominator
from coc_core.ops.triton_kernels import operator
from coc_core.ops.triton_kernels.plan import MAX_CENTERS, MAX_DIM

__all__ = ['cluster_packed_triton', 'cluster_triton', 'triton_available']

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _installed() -> bool:
    return importlib.util.find_spec('triton') is not None


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _interpreted() -> bool:
    import triton

    return bool(triton.knobs.runtime.interpret)


def triton_available(points: Tensor, values_dim: int, centers: int) -> bool:
    """Tell whether `cluster_triton` takes a call on a GPU, by device, precision and sizes alone.

    Args:
        points: [..., D], the points or points and values in one.
        values_dim: D'.
        centers: M, the centers of a region.
    """
    return (
        points.is_cuda
        and points.dtype in DTYPES
        and centers <= MAX_CENTERS
        and max(points.shape[-1], values_dim) <= MAX_DIM
        and _installed()
    )


def cluster_triton(
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
    """See `coc_core.ops.cluster`; equal to `cluster_reference` up to rounding. It cannot be differentiated twice.

    Args:
        points_BHWKD: float32, bfloat16 or float16 on a GPU. Read through its strides where the channels of a head are
            adjacent; else copied.
        values_BHWKD: Likewise; D' may differ from D, neither may be over 256.
        alpha: One element, of any floating type.
        beta: Likewise.
        center_grid: At most 64 centers.
        region_grid: As in `coc_core.ops.cluster`.
        denominator: As in `coc_core.ops.cluster`.
        center_map: Not taken.

    Returns:
        [B, H, W, K, D'] in the type of the values, dense; computed in float32.

    Raises:
        ValueError: Triton is not there or not for this device, or the call is not as said above.
    """
    if center_map is not None:
        raise ValueError("impl='triton' takes no center_map: choose impl='matmul'.")
    options = _checked(points_BHWKD, values_BHWKD, center_grid, region_grid, denominator)
    mixed: Tensor = operator.cluster(points_BHWKD, values_BHWKD, alpha, beta, *options)[0]
    return mixed


def cluster_packed_triton(
    points_values_BHW2KD: Tensor,
    alpha: Tensor,
    beta: Tensor,
    *,
    center_grid: Grid,
    region_grid: Grid,
    denominator: str,
) -> Tensor:
    """As `cluster_triton` for points and values in one tensor, whose gradient is one tensor, too.

    Args:
        points_values_BHW2KD: [B, H, W, 2, K, D], the points first, the values second.
        alpha: As in `cluster_triton`.
        beta: As in `cluster_triton`.
        center_grid: As in `cluster_triton`.
        region_grid: As in `cluster_triton`.
        denominator: As in `cluster_triton`.

    Returns:
        [B, H, W, K, D] in the type of the input, dense.

    Raises:
        ValueError: As `cluster_triton`, or the tensor is not as said above.
    """
    if points_values_BHW2KD.ndim != 6 or points_values_BHW2KD.shape[3] != 2:
        raise ValueError(
            f'points and values must be [B, H, W, 2, heads, D]; got shape {list(points_values_BHW2KD.shape)}.'
        )
    points, values = points_values_BHW2KD.unbind(dim=3)
    options = _checked(points, values, center_grid, region_grid, denominator)
    mixed: Tensor = operator.cluster_packed(points_values_BHW2KD, alpha, beta, *options)[0]
    return mixed


def _checked(
    points: Tensor, values: Tensor, center_grid: Grid, region_grid: Grid, denominator: str
) -> tuple[int, int, int, int, bool]:
    """The registered operators' options.

    Raises:
        ValueError: See `cluster_triton`.
    """
    if not _installed():
        raise ValueError("impl='triton' needs Triton, which is not installed: pip install triton, or impl='recompute'.")
    if not points.is_cuda and not _interpreted():
        raise ValueError(f"impl='triton' needs a GPU, the points are on {points.device}: choose impl='recompute'.")
    for name, x in (('points', points), ('values', values)):
        if x.dtype not in DTYPES:
            raise ValueError(f"impl='triton' takes float32, bfloat16 and float16; {name} are {x.dtype}.")
        if x.shape[-1] > MAX_DIM:
            raise ValueError(f"impl='triton' takes heads of at most {MAX_DIM} channels; {name} have {x.shape[-1]}.")
    if points.shape[:-1] != values.shape[:-1]:
        raise ValueError(f'points {list(points.shape)} and values {list(values.shape)} must be maps of the same size.')
    RegionLayout.of(points, region_grid)
    centers, regions = as_pair(center_grid, 'center_grid'), as_pair(region_grid, 'region_grid')
    if centers[0] * centers[1] > MAX_CENTERS:
        raise ValueError(
            f"impl='triton' takes at most {MAX_CENTERS} centers; center_grid={center_grid!r} has "
            f"{centers[0] * centers[1]}: choose impl='recompute'."
        )
    check_denominator(denominator)
    return *centers, *regions, denominator == 'count'
