"""Allocates what the kernel of the MLP writes and launches it."""

from __future__ import annotations

from torch import Tensor

from coc_core.errors import UserError
from coc_core.ops.triton import launch, plan


def forward(x_PC: Tensor, weight1: Tensor, bias1: Tensor, weight2: Tensor, bias2: Tensor) -> Tensor:
    """Return fc2(gelu(fc1(x))), all of one half precision.

    Raises:
        UserError: The layers do not go together, or not with the map.
    """
    (rows, channels), hidden, width = x_PC.shape, len(weight1), len(weight2)
    weights = weight1, bias1, weight2, bias2
    if weight1.shape[1] != channels or weight2.shape[1] != hidden or {x_PC.dtype} != {w.dtype for w in weights}:
        layers = ' and '.join(f'{w.dtype} {list(w.shape)}' for w in (weight1, weight2))
        raise UserError(f'An MLP with weights {layers} does not take a map of {channels} channels in {x_PC.dtype}.')
    out = x_PC.new_empty(rows, width)
    if out.numel() == 0:
        return out
    from coc_core.ops.triton import mlp as kernels

    blocks = plan.mlp_blocks(max(channels, width))
    sizes = dict(C=channels, E=hidden, OUT=width, BLOCK_P=blocks[0], BLOCK_E=blocks[1], BLOCK_C=blocks[2])
    arguments = (t.contiguous() for t in (x_PC, *weights))
    with launch.on_device(x_PC):
        programs = -(-rows // blocks[0])
        launch.run(kernels.mlp_forward, programs, *arguments, out, rows, **sizes, warps=plan.MLP_WARPS)
    return out
