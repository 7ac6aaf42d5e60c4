"""Allocates what the kernels of the norm write and launches them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from coc_core.errors import UserError
from coc_core.ops.triton import launch, plan


def forward(x_BHWC: Tensor, weight: Tensor, bias: Tensor, eps: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return the norm of a dense map in a precision, and each image's statistics, float32 [B, 3]."""
    out = torch.empty_like(x_BHWC, dtype=dtype)
    statistics = x_BHWC.new_empty((len(x_BHWC), 3), dtype=torch.float32)
    if out.numel() == 0:
        return out, statistics
    kernels, programs, sizes, blocks = _plan(x_BHWC)
    partial = x_BHWC.new_empty((programs, 3), dtype=torch.float32)
    with launch.on_device(x_BHWC):
        tile = dict(C=blocks['C'], BLOCK=plan.NORM_TILE, warps=plan.NORM_WARPS)
        launch.run(kernels.norm_statistics, programs, x_BHWC, partial, *sizes, **tile)
        arguments = x_BHWC, weight, bias, partial, out, statistics, *sizes, eps
        launch.run(kernels.norm_apply, programs, *arguments, CHUNKS=plan.NORM_CHUNKS, **blocks)
    return out, statistics


def backward(grad: Tensor, x: Tensor, weight: Tensor, statistics: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gradient of a dense map, and those of bias and weight, float32 [2, C]."""
    grad_x, channels = torch.empty_like(x), x.shape[3]
    if grad.numel() == 0:
        return grad_x, statistics.new_zeros((2, channels))
    kernels, programs, sizes, blocks = _plan(x)
    partial = statistics.new_empty((programs, 2, channels))
    with launch.on_device(x):
        launch.run(kernels.norm_gradient_sums, programs, grad, x, statistics, partial, *sizes, **blocks)
        sums_B2C = partial.view(len(x), -1, 2, channels).sum(dim=1)
        means = (sums_B2C * weight.float()).sum(dim=2) / x.shape[1:].numel()
        arguments = grad, x, weight, statistics, means, grad_x
        launch.run(kernels.norm_gradient, programs, *arguments, *sizes, **blocks)
    return grad_x, sums_B2C.sum(dim=0)


def _plan(x_BHWC: Tensor) -> tuple[Any, int, tuple[int, int], dict[str, int]]:
    """Return the kernels, how many programs work, an image's positions and chunks, and what is compiled in."""
    from coc_core.ops.triton import norm as kernels

    images, height, width, channels = x_BHWC.shape
    if x_BHWC[0].numel() >= launch.INT32_ELEMENTS:
        raise UserError(f"An image of {height}x{width} points has over 2^31 elements here: choose impl='plain'.")
    block_n, block_c = plan.norm_blocks(channels)
    chunks = plan.norm_chunks(images, height * width, block_n, launch.processors(x_BHWC))
    blocks = dict(C=channels, BLOCK_N=block_n, BLOCK_C=block_c, warps=plan.NORM_WARPS)
    return kernels, images * chunks, (height * width, chunks), blocks
