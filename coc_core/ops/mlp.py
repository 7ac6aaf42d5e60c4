"""Linear, GELU, Linear over the positions of a map, as fused code has it on CPUs and GPUs.

The hidden map is four or eight times as wide as the map itself. Made whole it leaves the processor's caches and, on a
CPU, each one is fresh memory whose pages the system has to clear; kept for backward, twice, it is most of what a
block holds. Here it exists for a few thousand positions at a time, GELU overwrites it, and backward makes it again. For
half precision and narrow maps GPUs have a kernel of the forward, in which the hidden map never leaves the chip.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from coc_core.ops.context import cast_to_autocast, differentiated_once, working_dtype
from coc_core.ops.linear import add_product, fold_scale
from coc_core.ops.triton import launch_mlp

# Hidden maps up to this many bytes are kept for backward. Making larger ones again takes about as long as it takes the
# system to clear the pages of fresh memory for them.
KEPT_BYTES = 8 * 2**20
# Of the hidden map that exist at a time: a CPU's caches hold it; a GPU wants large products.
PIECE_BYTES = {'cpu': 4 * 2**20, 'cuda': 256 * 2**20}


def mlp(layer: Any, x: Tensor, scale: Tensor | None = None) -> Tensor:
    """Return ``scale * fc2(gelu(fc1(x)))`` (exact GELU), a few thousand positions at a time.

    Args:
        layer: ``fc1`` and ``fc2`` are used.
        x: [..., C], floating.
        scale: [C], or None for one.

    Returns:
        [..., C] in the dtype of ``x``, or of autocast where that is on.
    """
    return _mlp(layer, x, scale, by_kernel=False)


def kernel_mlp(layer: Any, x: Tensor, scale: Tensor | None = None) -> Tensor:
    """Return what `mlp` does, in half precision, by one Triton kernel: of up to ``plan.MLP_CHANNELS`` channels.

    The kernel applies GELU to float32. Backward makes the hidden map again as that of `mlp` does, rounded to half
    precision before GELU.
    """
    return _mlp(layer, x, scale, by_kernel=True)


def _mlp(layer: Any, x: Tensor, scale: Tensor | None, by_kernel: bool) -> Tensor:
    weight, bias, scale = fold_scale(layer.fc2, scale, x)
    x, *weights = cast_to_autocast(x, layer.fc1.weight, layer.fc1.bias, weight, bias)
    x_PC = x.flatten(0, -2)
    small = not by_kernel and len(x_PC) * len(weights[0]) * x.element_size() <= KEPT_BYTES
    keep = small and torch.is_grad_enabled()
    out_PC: Tensor = _Mlp.apply(x_PC, *weights, keep, by_kernel)  # type: ignore[no-untyped-call]
    out = out_PC.view(*x.shape[:-1], len(bias))
    return out if scale is None else scale * out


class _Mlp(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x_PC: Tensor, weight1: Tensor, bias1: Tensor, weight2: Tensor, bias2: Tensor,
        keep: bool, by_kernel: bool,
    ) -> Tensor:  # fmt: skip
        if by_kernel:
            ctx.save_for_backward(x_PC, weight1, bias1, weight2, None)
            return launch_mlp.forward(x_PC, weight1, bias1, weight2, bias2)
        rows, step = len(x_PC), piece_rows(x_PC, weight1)
        out = x_PC.new_empty(rows, len(weight2))
        hidden_PE = x_PC.new_empty(rows if keep else min(step, rows), len(weight1))
        active_PE = x_PC.new_empty(min(step, rows), len(weight1)) if keep else hidden_PE
        for start in range(0, rows, step):
            x = x_PC[start : start + step]
            hidden = hidden_PE[start : start + step] if keep else hidden_PE[: len(x)]
            torch.addmm(bias1, x, weight1.t(), out=hidden)
            active = torch.ops.aten.gelu.out(hidden, out=active_PE[: len(x)])
            torch.addmm(bias2, active, weight2.t(), out=out[start : start + step])
        ctx.save_for_backward(x_PC, weight1, bias1, weight2, hidden_PE if keep else None)
        return out

    @staticmethod
    @differentiated_once
    def backward(ctx: Any, grad_PC: Tensor) -> tuple[Tensor | None, ...]:
        x_PC, weight1, bias1, weight2, kept_PE = ctx.saved_tensors
        rows, step = len(x_PC), piece_rows(x_PC, weight1)
        grad_PC = grad_PC.contiguous()
        grad_x = torch.empty_like(x_PC)
        # Half precision would lose the small terms of a sum over chunks.
        sums = [torch.zeros_like(p, dtype=working_dtype(p)) for p in (weight1, bias1, weight2)]
        grad_weight1, grad_bias1, grad_weight2 = sums
        buffers = x_PC.new_empty(3 if kept_PE is None else 2, min(step, rows), len(weight1))
        for start in range(0, rows, step):
            x, grad = x_PC[start : start + step], grad_PC[start : start + step]
            active, grad_hidden = buffers[0, : len(x)], buffers[1, : len(x)]
            if kept_PE is None:
                hidden = torch.addmm(bias1, x, weight1.t(), out=buffers[2, : len(x)])
            else:
                hidden = kept_PE[start : start + step]
            torch.ops.aten.gelu.out(hidden, out=active)
            add_product(grad_weight2, grad.t(), active)
            torch.mm(grad, weight2, out=grad_hidden)
            torch.ops.aten.gelu_backward.grad_input(grad_hidden, hidden, grad_input=grad_hidden)
            add_product(grad_weight1, grad_hidden.t(), x)
            grad_bias1 += grad_hidden.sum(0)
            torch.mm(grad_hidden, weight1, out=grad_x[start : start + step])
        grads = (g.to(weight1.dtype) for g in (*sums, grad_PC.sum(0)))
        return grad_x, *grads, None, None


def piece_rows(x_PC: Tensor, weight1: Tensor) -> int:
    """Return how many positions of a hidden map, of as many channels as ``weight1`` has rows, exist at a time."""
    size = PIECE_BYTES.get(x_PC.device.type, PIECE_BYTES['cuda'])
    return max(1, size // (len(weight1) * x_PC.element_size()))
