"""How a cloud becomes groups: farthest point sampling, nearest neighbors, gathering. Indices carry no gradient.

Shape suffixes in this package: B clouds, N points, S anchors, K points of a group, C channels; G groups and P positions
of all clouds.
"""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._higher_order_ops.scan import scan

from coc_core.errors import UserError


@torch.no_grad()
def farthest_point_sample(points_BN3: Tensor, count: int) -> Tensor:
    """Pick points one by one, each the farthest from those picked before, beginning with point 0.

    The first is taken on a tie; once a cloud has no other points left, that is point 0 again. (mmcv's kernel, which
    serves where it was compiled for the GPU, may take another of the points that are exactly equally far.)
    Published training code samples with a CUDA kernel that passes over points within 0.0316 of the origin; this
    does not.

    Args:
        points_BN3: Coordinates, floating.
        count: Points to pick.

    Returns:
        int64 [B, count].
    """
    if points_BN3.is_cuda and points_BN3.dtype == torch.float32 and _mmcv_samples_on_gpu():
        from mmcv.ops import furthest_point_sample

        kernel_BS: Tensor = furthest_point_sample(points_BN3.contiguous(), count)
        return kernel_BS.long()
    if torch.compiler.is_exporting():
        return _sample_in_graph(points_BN3, count)
    batch, _, _ = points_BN3.shape
    rows = torch.arange(batch, device=points_BN3.device)
    distances_BN = torch.full_like(points_BN3[..., 0], torch.inf)
    picked_BS = torch.zeros(batch, count, dtype=torch.int64, device=points_BN3.device)
    for i in range(1, count):
        last_B13 = points_BN3[rows, picked_BS[:, i - 1]][:, None]
        distances_BN = torch.minimum(distances_BN, (points_BN3 - last_B13).square().sum(dim=-1))
        picked_BS[:, i] = distances_BN.argmax(dim=1)
    return picked_BS


def _sample_in_graph(points_BN3: Tensor, count: int) -> Tensor:
    """Return the same as one operator with a loop inside: unrolled, an exported graph has thousands of nodes."""

    def step(carry: tuple[Tensor, Tensor], _: Tensor) -> tuple[tuple[Tensor, Tensor], Tensor]:
        distances_BN, last_B = carry
        last_B13 = points_BN3.gather(1, last_B[:, None, None].expand(-1, 1, 3))
        distances_BN = torch.minimum(distances_BN, (points_BN3 - last_B13).square().sum(dim=-1))
        picked_B = distances_BN.argmax(dim=1)
        return (distances_BN, picked_B), picked_B.clone()

    far_BN = torch.full_like(points_BN3[..., 0], torch.inf)
    first_B = torch.zeros_like(points_BN3[:, 0, 0], dtype=torch.int64)
    steps = torch.zeros(count - 1, device=points_BN3.device)
    _, picked_SB = scan(step, (far_BN, first_B), steps, dim=0)
    return torch.cat([first_B[None], picked_SB]).t()


@cache
def _mmcv_samples_on_gpu() -> bool:
    if find_spec('mmcv') is None or find_spec('mmcv._ext') is None:
        return False
    from mmcv.ops import get_compiling_cuda_version

    return bool(get_compiling_cuda_version() != 'not available')


@torch.no_grad()
def nearest_neighbors(points_BN3: Tensor, anchors_BS3: Tensor, count: int) -> Tensor:
    """Return the ``count`` points nearest to each anchor, in no order, by squared distance: int64 [B, S, count].

    Raises:
        UserError: The clouds have fewer points than that.
    """
    if count > points_BN3.shape[1]:
        raise UserError(f'A group of {count} points needs clouds of as many; these have {points_BN3.shape[1]}.')
    # |a|^2 + |b|^2 - 2ab loses the digits of what is far from the origin; [B, S, N, 3] would be large.
    x_BSN, y_BSN, z_BSN = (anchors_BS3[:, :, None, axis] - points_BN3[:, None, :, axis] for axis in range(3))
    squares_BSN = x_BSN.square_().add_(y_BSN.square_()).add_(z_BSN.square_())
    return squares_BSN.topk(count, dim=-1, largest=False, sorted=False).indices


def gather_points(values_BNC: Tensor, index: Tensor) -> Tensor:
    """Return ``values[b, index[b, ...]]``: [B, N, C] and int64 [B, ...] -> [B, ..., C]."""
    batch, points, _ = values_BNC.shape
    offsets = torch.arange(batch, device=index.device) * points
    rows = index + offsets.reshape(-1, *(1,) * (index.ndim - 1))
    # An embedding's gradient is summed row by row on all cores; that of indexing sorts the indices first.
    return F.embedding(rows, values_BNC.flatten(0, 1))
