"""Group norm with one group on a channels-last map, as fused code has it: one form for CPUs, one for GPUs."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from coc_core.ops.context import autocast_dtype, differentiated_once
from coc_core.ops.triton import launch_norm


def group_norm(norm: nn.GroupNorm, x_BHWC: Tensor) -> Tensor:
    """Return PyTorch's own norm of a map, which on a CPU reads channels-last memory as it is."""
    if torch.is_grad_enabled() and not x_BHWC.requires_grad:
        # PyTorch 2.13's channels-last kernel crashes in backward when its input needs no gradient (frozen stages).
        x_BHWC = x_BHWC.detach().requires_grad_()
    x_BCHW = x_BHWC.permute(0, 3, 1, 2)
    return F.group_norm(x_BCHW, 1, norm.weight, norm.bias, norm.eps).permute(0, 2, 3, 1)


def map_norm(norm: Any, x_BHWC: Tensor) -> Tensor:
    """Return the norm of a map by Triton's kernels: PyTorch's for GPUs copy it to channels-first memory and back.

    The map is read twice and written once, in backward read twice and written once with its gradient. Sums are in
    float32.

    Args:
        norm: A `coc_core.layers.MapNorm`.
        x_BHWC: float32 or half precision.

    Returns:
        Like ``x_BHWC``. Under autocast it is float32, as of PyTorch's norms, or where ``norm.before_linear`` says that
        a linear layer follows, which would round it, of autocast's type.
    """
    dtype = x_BHWC.dtype
    if torch.is_autocast_enabled(x_BHWC.device.type):
        dtype = autocast_dtype(x_BHWC) if norm.before_linear else torch.float32
    out: Tensor = _MapNorm.apply(x_BHWC, norm.weight, norm.bias, norm.eps, dtype)  # type: ignore[no-untyped-call]
    return out


class _MapNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_BHWC: Tensor, weight: Tensor, bias: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
        x = x_BHWC.contiguous()
        out, statistics = launch_norm.forward(x, weight, bias, eps, dtype)
        ctx.save_for_backward(x, weight, statistics)
        return out

    @staticmethod
    @differentiated_once
    def backward(ctx: Any, grad_BHWC: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, statistics = ctx.saved_tensors
        grad_x, sums_2C = launch_norm.backward(grad_BHWC.contiguous(), x, weight, statistics)
        grad_bias, grad_weight = sums_2C.to(weight.dtype)
        return grad_x, grad_weight, grad_bias, None, None
