"""Group norm with one group on a channels-last map, as fused code has it: one form for CPUs, one for GPUs."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from coc_core.ops.context import differentiated_once, working_dtype


def group_norm(norm: nn.GroupNorm, x_BHWC: Tensor) -> Tensor:
    """Return PyTorch's own norm of a map, which on a CPU reads channels-last memory as it is."""
    if torch.is_grad_enabled() and not x_BHWC.requires_grad:
        # PyTorch 2.13's channels-last kernel crashes in backward when its input needs no gradient (frozen stages).
        x_BHWC = x_BHWC.detach().requires_grad_()
    x_BCHW = x_BHWC.permute(0, 3, 1, 2)
    return F.group_norm(x_BCHW, 1, norm.weight, norm.bias, norm.eps).permute(0, 2, 3, 1)


def map_norm(norm: nn.GroupNorm, x_BHWC: Tensor) -> Tensor:
    """Return the norm of a map without a copy: PyTorch's kernel for GPUs takes channels-first memory alone.

    It copies the map, and what follows copies its output back. Sums are in float32 or better.

    Args:
        norm: ``weight``, ``bias`` and ``eps`` are used.
        x_BHWC: Floating.

    Returns:
        Like ``x_BHWC``; float32 for half precision under autocast, as PyTorch's norms.
    """
    wide = torch.is_autocast_enabled(x_BHWC.device.type)
    dtype = working_dtype(x_BHWC) if wide else x_BHWC.dtype
    out: Tensor = _MapNorm.apply(x_BHWC, norm.weight, norm.bias, norm.eps, dtype)  # type: ignore[no-untyped-call]
    return out


class _MapNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_BHWC: Tensor, weight: Tensor, bias: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
        exact = working_dtype(x_BHWC)
        variance, mean = torch.var_mean(x_BHWC.to(exact), dim=(1, 2, 3), correction=0, keepdim=True)
        rstd = (variance + eps).rsqrt_()
        scale = rstd * weight.to(exact)
        out = torch.empty(x_BHWC.shape, dtype=dtype, device=x_BHWC.device)
        torch.addcmul(bias.to(exact) - mean * scale, x_BHWC, scale, out=out)
        ctx.save_for_backward(x_BHWC, weight, mean, rstd)
        return out

    @staticmethod
    @differentiated_once
    def backward(ctx: Any, grad_BHWC: Tensor) -> tuple[Tensor | None, ...]:
        x_BHWC, weight, mean, rstd = ctx.saved_tensors
        exact = mean.dtype
        # All that is summed over positions, [B, 1, 1, C]; the rest is arithmetic on these.
        grad_sum = grad_BHWC.sum(dim=(1, 2), keepdim=True, dtype=exact)
        grad_x_sum = (grad_BHWC * x_BHWC).sum(dim=(1, 2), keepdim=True, dtype=exact)
        grad_weight_each = (grad_x_sum - mean * grad_sum) * rstd
        count = x_BHWC.shape[1:].numel()
        wide = weight.to(exact)
        mean_grad = (grad_sum * wide).sum(dim=3, keepdim=True) / count
        mean_grad_normed = (grad_weight_each * wide).sum(dim=3, keepdim=True) / count
        along = rstd * rstd * mean_grad_normed
        grad_x = torch.addcmul(along * mean - rstd * mean_grad, grad_BHWC, rstd * wide).addcmul_(
            along, x_BHWC, value=-1
        )
        grad_weight, grad_bias = (g.sum(dim=(0, 1, 2)).to(weight.dtype) for g in (grad_weight_each, grad_sum))
        return grad_x.to(x_BHWC.dtype), grad_weight, grad_bias, None, None
