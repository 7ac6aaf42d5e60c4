"""Batch norm of points, with statistics that are exact where many points are the same."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class PointNorm(nn.BatchNorm1d):
    """Batch norm of points, [P, C]. Overwrite its output, never a view of that: autograd would copy the whole map."""

    running_mean: Tensor
    running_var: Tensor
    _counts = True

    def forward(self, x_PC: Tensor) -> Tensor:
        """[P, C] -> [P, C]."""
        if not self.training:
            return F.batch_norm(x_PC, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        mean_C, variance_C = batch_statistics(x_PC.detach())
        self.count_batch(mean_C, variance_C, len(x_PC))
        normed: Tensor = _BatchNorm.apply(  # type: ignore[no-untyped-call]
            x_PC, self.weight, self.bias, mean_C, variance_C, self.eps
        )
        return normed

    @contextmanager
    def uncounted(self) -> Iterator[None]:
        """Return a context in which batches that are seen again are not counted in the running statistics."""
        self._counts = False
        try:
            yield
        finally:
            self._counts = True

    def count_batch(self, mean_C: Tensor, variance_C: Tensor, points: int) -> None:
        """Count a batch's mean and biased variance, over so many points, in the running statistics."""
        if not self._counts:
            return
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        momentum = self.momentum or 0.0
        for running, seen in ((self.running_mean, mean_C), (self.running_var, variance_C * (points / (points - 1)))):
            running.lerp_(seen.to(running.dtype), momentum)


def batch_statistics(x_PC: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and biased variance of each channel over P positions, each [C].

    PyTorch's batch norm on a CPU adds up position after position in float32, which is worst where many are the same.
    Here it makes T sums of a few each, side by side, which are joined in float64.

    Raises:
        ValueError: There is one point only.
    """
    if len(x_PC) < 2:
        raise ValueError(f'A batch norm that trains needs two points or more, not {len(x_PC)}.')
    if x_PC.device.type != 'cpu' or x_PC.dtype != torch.float32:
        mean_C, variance_C = torch.batch_norm_update_stats(x_PC, None, None, 0.0)
        return mean_C, variance_C
    few = next(count for count in range(16, 0, -1) if len(x_PC) % count == 0)
    found = torch.batch_norm_update_stats(x_PC.reshape(few, -1), None, None, 0.0)
    means_TC, variances_TC = (each.view(-1, x_PC.shape[1]).double() for each in found)
    mean_C = means_TC.mean(dim=0)
    variance_C = variances_TC.mean(dim=0) + (means_TC - mean_C).square_().mean(dim=0)
    return mean_C.float(), variance_C.float()


class _BatchNorm(torch.autograd.Function):
    """PyTorch's batch norm with statistics of the batch that are given."""

    @staticmethod
    def forward(
        ctx: Any, x_PC: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, variance: Tensor, eps: float
    ) -> Tensor:
        ctx.save_for_backward(x_PC, weight, mean, variance)
        ctx.eps = eps
        return apply_norm(x_PC, weight, bias, mean, variance, eps)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_PC: Tensor) -> tuple[Tensor | None, ...]:
        x_PC, weight, mean, variance = ctx.saved_tensors
        return *norm_gradients(grad_PC, x_PC, weight, mean, variance, ctx.eps), None, None, None


def apply_norm(x_PC: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, variance: Tensor, eps: float) -> Tensor:
    """Return a batch norm with statistics that are given."""
    mean, variance = mean.to(weight.dtype), variance.to(weight.dtype)
    return F.batch_norm(x_PC, mean, variance, weight, bias, False, 0.0, eps)


def norm_gradients(
    grad_PC: Tensor, x_PC: Tensor, weight: Tensor, mean: Tensor, variance: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of input, weight and bias of a batch norm by the statistics of its batch."""
    mean, rstd = mean.to(weight.dtype), (variance + eps).rsqrt().to(weight.dtype)
    grads: tuple[Tensor, Tensor, Tensor] = torch.ops.aten.native_batch_norm_backward(
        grad_PC, x_PC, weight, None, None, mean, rstd, True, eps, [True, True, True]
    )
    return grads
