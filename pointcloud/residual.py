"""The residual block of PointMLP.

While it trains, the map between its linear layers exists for a few thousand points at a time, and is made again for the
gradient; backward overwrites maps that it has made itself. Fresh ones cost most: the system clears their pages.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from coc_core.ops.context import cast_to_autocast
from coc_core.ops.linear import add_product, is_bare
from coc_core.ops.mlp import piece_rows
from pointcloud.norm import PointNorm, apply_norm, batch_statistics, norm_gradients


class ResidualBlock(nn.Module):
    """relu(x + norm2(linear2(relu(norm1(linear1(x))))) on each point by itself.

    Args:
        dim: Channels.
        expansion: Hidden width divided by ``dim``.
    """

    def __init__(self, dim: int, expansion: float) -> None:
        super().__init__()
        hidden = int(dim * expansion)
        self.linear1 = nn.Linear(dim, hidden, bias=False)
        self.norm1 = PointNorm(hidden)
        self.linear2 = nn.Linear(hidden, dim, bias=False)
        self.norm2 = PointNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        """[..., C] -> [..., C]. Layers that were replaced or have hooks are called, which takes more memory."""
        x_PC = x.flatten(0, -2)
        if self._trains_in_pieces():
            return self._train(x_PC).view(x.shape)
        hidden = F.relu(self.norm1(self.linear1(x_PC)), inplace=True)
        return F.relu(self.norm2(self.linear2(hidden)).add_(x_PC), inplace=True).view(x.shape)

    def _trains_in_pieces(self) -> bool:
        stock = {self.linear1: nn.Linear, self.norm1: PointNorm, self.linear2: nn.Linear, self.norm2: PointNorm}
        usual = all(type(layer) is kind and is_bare(layer) and layer.training for layer, kind in stock.items())
        return usual and self.linear1.bias is None and self.linear2.bias is None

    def _train(self, x_PC: Tensor) -> Tensor:
        x_PC, weight1, weight2 = cast_to_autocast(x_PC, self.linear1.weight, self.linear2.weight)
        norms = self.norm1, self.norm2
        (scale1, shift1), (scale2, shift2) = ((norm.weight, norm.bias) for norm in norms)
        out_PC, *statistics = _Residual.apply(  # type: ignore[no-untyped-call]
            x_PC, weight1, scale1, shift1, weight2, scale2, shift2, [norm.eps for norm in norms]
        )
        for norm, mean, variance in zip(norms, statistics[::2], statistics[1::2], strict=True):
            norm.count_batch(mean, variance, len(x_PC))
        result: Tensor = out_PC
        return result


class _Residual(torch.autograd.Function):
    """The block's output, and the mean and variance of what each norm has seen."""

    @staticmethod
    def forward(
        ctx: Any, x_PC: Tensor, weight1: Tensor, scale1: Tensor, shift1: Tensor,
        weight2: Tensor, scale2: Tensor, shift2: Tensor, eps: list[float],
    ) -> tuple[Tensor, ...]:  # fmt: skip
        first_PE = x_PC @ weight1.t()
        seen1 = batch_statistics(first_PE)
        second_PC = torch.empty_like(x_PC)
        step = piece_rows(x_PC, weight1)
        for start in range(0, len(x_PC), step):
            hidden = apply_norm(first_PE[start : start + step], scale1, shift1, *seen1, eps[0]).relu_()
            torch.mm(hidden, weight2.t(), out=second_PC[start : start + step])
        seen2 = batch_statistics(second_PC)
        out_PC = apply_norm(second_PC, scale2, shift2, *seen2, eps[1]).add_(x_PC).relu_()
        ctx.save_for_backward(
            x_PC, first_PE, second_PC, out_PC, weight1, scale1, shift1, weight2, scale2, *seen1, *seen2
        )
        ctx.eps = eps
        ctx.mark_non_differentiable(*seen1, *seen2)
        return out_PC, *seen1, *seen2

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_PC: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        x_PC, first_PE, second_PC, out_PC, weight1, scale1, shift1, weight2, scale2, *seen = ctx.saved_tensors
        mean1, variance1, mean2, variance2 = seen
        grad_x = torch.ops.aten.threshold_backward(grad_PC, out_PC, 0)
        grad_second, grad_scale2, grad_shift2 = norm_gradients(grad_x, second_PC, scale2, mean2, variance2, ctx.eps[1])
        grad_hidden = torch.empty_like(first_PE)
        # Half precision would lose the small terms of a sum over pieces.
        grad_weight2 = torch.zeros_like(weight2, dtype=scale2.dtype)
        step = piece_rows(x_PC, weight1)
        for start in range(0, len(x_PC), step):
            grad, to = grad_second[start : start + step], grad_hidden[start : start + step]
            hidden = apply_norm(first_PE[start : start + step], scale1, shift1, mean1, variance1, ctx.eps[0]).relu_()
            add_product(grad_weight2, grad.t(), hidden)
            torch.mm(grad, weight2, out=to)
            torch.ops.aten.threshold_backward.grad_input(to, hidden, 0, grad_input=to)
        del grad_second
        grad_first, grad_scale1, grad_shift1 = norm_gradients(
            grad_hidden, first_PE, scale1, mean1, variance1, ctx.eps[0]
        )
        del grad_hidden
        grad_weight1 = grad_first.t() @ x_PC
        grad_x.addmm_(grad_first, weight1)
        return (
            grad_x, grad_weight1, grad_scale1, grad_shift1,
            grad_weight2.to(weight2.dtype), grad_scale2, grad_shift2, None,
        )  # fmt: skip
