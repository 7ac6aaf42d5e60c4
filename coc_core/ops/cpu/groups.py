"""The clustering operator on groups, [G, N, D]: forward, and a backward that needs little of it.

A group is one head of one region. Of each point its center and its cosine are enough to go back; what is as large as
centers times points is made again. Sums over points are batched matrix products, the pooling among them: added to the
similarities, the windows' weights make the center's own value and the sum of its members one product.
"""

from __future__ import annotations

import torch
from torch import Tensor

from coc_core.ops.regions import NORM_EPS


def cluster_groups(
    points_GND: Tensor, values_GND: Tensor, alpha: Tensor, beta: Tensor, windows_MN: Tensor, denominator: str
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the mixed values [G, N, D'], and of each point its center, [G, N], and its cosine with that, [G, N]."""
    windows_GMN = windows_MN.expand(len(points_GND), -1, -1)
    units_GMD, _ = _unit(torch.bmm(windows_GMN, points_GND))
    member_GMN, cosine_GN = _nearest(units_GMD, points_GND, alpha)
    cosine_GN /= torch.linalg.vector_norm(points_GND, dim=-1).clamp_min_(NORM_EPS)
    ranks_M = torch.arange(len(windows_MN), dtype=points_GND.dtype, device=points_GND.device)
    index_GN = (ranks_M @ member_GMN).to(torch.uint8 if len(windows_MN) <= 256 else torch.int32)
    s_GMN, weight_GM1 = _similarities(member_GMN, cosine_GN, alpha, beta, denominator)
    held_GMD = torch.bmm(s_GMN + windows_MN, values_GND).div_(weight_GM1)
    return torch.bmm(s_GMN.mT, held_GMD), index_GN, cosine_GN


def cluster_groups_backward(
    points_GND: Tensor, values_GND: Tensor, alpha: Tensor, beta: Tensor, windows_MN: Tensor, denominator: str,
    index_GN: Tensor, cosine_GN: Tensor, grad_GND: Tensor, mixed_again: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:  # fmt: skip
    """Return the gradients of points, of values, of alpha and beta as two numbers, and if asked the mixed values."""
    member_GMN = _members(index_GN, windows_MN)
    s_GMN, weight_GM1 = _similarities(member_GMN.clone(), cosine_GN, alpha, beta, denominator)
    pooled_GMN = s_GMN + windows_MN
    held_GMD = torch.bmm(pooled_GMN, values_GND).div_(weight_GM1)
    mixed_GND = torch.bmm(s_GMN.mT, held_GMD) if mixed_again else None

    grad_sum_GMD = torch.bmm(s_GMN, grad_GND).div_(weight_GM1)
    grad_values_GND = torch.bmm(pooled_GMN.mT, grad_sum_GMD)
    grad_s_GMN = torch.bmm(held_GMD, grad_GND.mT, out=pooled_GMN).baddbmm_(grad_sum_GMD, values_GND.mT)
    if denominator == 'similarity':
        grad_s_GMN -= (grad_sum_GMD * held_GMD).sum(dim=2, keepdim=True)
    s_GN = torch.sigmoid(beta + alpha * cosine_GN)
    grad_z_GN = grad_s_GMN.mul_(member_GMN).sum(dim=1).mul_(s_GN).mul_(1 - s_GN)

    lengths_GN = torch.linalg.vector_norm(points_GND, dim=-1)
    inverse_GN = lengths_GN.clamp_min(NORM_EPS).reciprocal_()
    scaled_GN = alpha * grad_z_GN * inverse_GN
    scaled_GMN = member_GMN.mul_(scaled_GN[:, None])
    windows_GMN = windows_MN.expand(len(points_GND), -1, -1)
    units_GMD, center_lengths_GM1 = _unit(torch.bmm(windows_GMN, points_GND))
    grad_units_GMD = torch.bmm(scaled_GMN, points_GND)
    # A vector shorter than eps is divided by eps: its length has no gradient.
    along_GM1 = (grad_units_GMD * units_GMD).sum(dim=2, keepdim=True) * (center_lengths_GM1 >= NORM_EPS)
    grad_centers_GMD = (grad_units_GMD - along_GM1 * units_GMD).div_(center_lengths_GM1.clamp_min(NORM_EPS))
    along_GN = scaled_GN * cosine_GN * inverse_GN * (lengths_GN >= NORM_EPS)
    grad_points_GND = torch.bmm(scaled_GMN.mT, units_GMD).baddbmm_(windows_GMN.mT, grad_centers_GMD)
    grad_points_GND.addcmul_(points_GND, along_GN[..., None], value=-1)
    grad_scalars = torch.stack([(grad_z_GN * cosine_GN).sum(), grad_z_GN.sum()])
    return grad_points_GND, grad_values_GND, grad_scalars, mixed_GND


def _unit(centers_GMD: Tensor) -> tuple[Tensor, Tensor]:
    """Centers of length one, and their lengths before, [G, M, 1]."""
    lengths_GM1 = torch.linalg.vector_norm(centers_GMD, dim=-1, keepdim=True)
    return centers_GMD / lengths_GM1.clamp_min(NORM_EPS), lengths_GM1


def _nearest(units_GMD: Tensor, points_GND: Tensor, alpha: Tensor) -> tuple[Tensor, Tensor]:
    """One at each point's center and zero at the others, [G, M, N], and the product of point and center, [G, N].

    The length of a point does not change which z is the largest, nor does beta; of alpha only the sign does.
    """
    product_GMN = torch.bmm(units_GMD, points_GND.mT)
    sign = float(torch.sign(alpha))
    if sign == 0:
        first_GN = product_GMN[:, 0].clone()
        member_GMN = product_GMN.zero_()
        member_GMN[:, 0] = 1
        return member_GMN, first_GN
    largest_GN = product_GMN.amax(dim=1) if sign > 0 else product_GMN.amin(dim=1)
    member_GMN = product_GMN.eq_(largest_GN[:, None])
    if torch.count_nonzero(member_GMN) > largest_GN.numel():
        # On a tie the first center wins.
        member_GMN *= member_GMN.cumsum(dim=1) == 1
    return member_GMN, largest_GN


def _members(index_GN: Tensor, windows_MN: Tensor) -> Tensor:
    """One at each point's center and zero at the others, [G, M, N]."""
    centers_M1 = torch.arange(len(windows_MN), device=index_GN.device)[:, None]
    return (index_GN[:, None] == centers_M1).to(windows_MN.dtype)


def _similarities(
    member_GMN: Tensor, cosine_GN: Tensor, alpha: Tensor, beta: Tensor, denominator: str
) -> tuple[Tensor, Tensor]:
    """Each point's similarity at its center, in the place of ``member_GMN``; what a center divides by, [G, M, 1]."""
    count_GM1 = member_GMN.sum(dim=2, keepdim=True) if denominator == 'count' else None
    s_GMN = member_GMN.mul_(torch.sigmoid(beta + alpha * cosine_GN)[:, None])
    return s_GMN, 1 + (s_GMN.sum(dim=2, keepdim=True) if count_GM1 is None else count_GM1)
