"""Group norm with one group on a channels-last map, without a copy in another layout.

PyTorch's kernel for GPUs takes channels-first maps alone: it copies the map, and what follows copies its output back.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from coc_core.ops.common import outside_autocast, working_dtype


def map_norm(x_BHWC: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """Normalise each sample over H, W and C together, then scale and shift its channels.

    Args:
        x_BHWC: Floating.
        weight: [C].
        bias: [C].
        eps: Added to the variance.

    Returns:
        Like ``x_BHWC``; float32 for half precision under autocast, as PyTorch's norms. Sums are in float32 or better.
    """
    wide = torch.is_autocast_enabled(x_BHWC.device.type)
    dtype = working_dtype(x_BHWC) if wide else x_BHWC.dtype
    out: Tensor = _MapNorm.apply(x_BHWC, weight, bias, eps, dtype)  # type: ignore[no-untyped-call]
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
    @outside_autocast
    @once_differentiable  # type: ignore[untyped-decorator]
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
