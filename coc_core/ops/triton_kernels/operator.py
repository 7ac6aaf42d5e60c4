"""Registers the operator with PyTorch: autograd, autocast, compilers and exporters see one operator.

Two forms share all launch code: points and values apart, or as the halves of one tensor, the output of the projection
that makes both; then the gradient is one tensor, too. The operators' arguments are plain ints, as a registered
operator takes no pairs. Autocast leaves them alone: half-precision maps are read as they are and computed in float32.
"""

from typing import Any

import torch
from torch import Tensor

from coc_core.ops.triton_kernels import launch
from coc_core.ops.triton_kernels.launch import State, problem_of

SevenTensors = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]


@torch.library.custom_op('coc_core::cluster', mutates_args=())
def cluster(
    points: Tensor,
    values: Tensor,
    alpha: Tensor,
    beta: Tensor,
    center_rows: int,
    center_cols: int,
    region_rows: int,
    region_cols: int,
    count: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The mixed map, then what the backward needs (see `launch.State`)."""
    problem = problem_of(points, values, center_rows, center_cols, region_rows, region_cols, count)
    mixed, state = launch.forward(points, values, alpha, beta, problem)
    return mixed, *state


@cluster.register_fake
def _(points: Tensor, values: Tensor, alpha: Tensor, beta: Tensor, *options: Any) -> SevenTensors:
    mixed, state = launch.allocate(problem_of(points, values, *options), values)
    return mixed, *state


@torch.library.custom_op('coc_core::cluster_backward', mutates_args=())
def cluster_backward(
    grad: Tensor,
    points: Tensor,
    values: Tensor,
    alpha: Tensor,
    beta: Tensor,
    center: Tensor,
    similarity: Tensor,
    unit: Tensor,
    length: Tensor,
    held: Tensor,
    weight: Tensor,
    center_rows: int,
    center_cols: int,
    region_rows: int,
    region_cols: int,
    count: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The gradients of points, values, alpha and beta."""
    problem = problem_of(points, values, center_rows, center_cols, region_rows, region_cols, count)
    grad_points, grad_values = points.new_empty(points.shape), values.new_empty(values.shape)
    state = State(center, similarity, unit, length, held, weight)
    scalars = launch.backward(grad, points, values, alpha, beta, state, grad_points, grad_values, problem)
    return grad_points, grad_values, *scalars


@cluster_backward.register_fake
def _(
    grad: Tensor, points: Tensor, values: Tensor, alpha: Tensor, beta: Tensor, *rest: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return tuple(x.new_empty(x.shape) for x in (points, values, alpha, beta))  # type: ignore[return-value]


@torch.library.custom_op('coc_core::cluster_packed', mutates_args=())
def cluster_packed(
    points_values: Tensor,
    alpha: Tensor,
    beta: Tensor,
    center_rows: int,
    center_cols: int,
    region_rows: int,
    region_cols: int,
    count: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """As `cluster`, on [B, H, W, 2, K, D], the points first."""
    points, values = points_values.unbind(dim=3)
    problem = problem_of(points, values, center_rows, center_cols, region_rows, region_cols, count)
    mixed, state = launch.forward(points, values, alpha, beta, problem)
    return mixed, *state


@cluster_packed.register_fake
def _(points_values: Tensor, alpha: Tensor, beta: Tensor, *options: Any) -> SevenTensors:
    points, values = points_values.unbind(dim=3)
    mixed, state = launch.allocate(problem_of(points, values, *options), values)
    return mixed, *state


@torch.library.custom_op('coc_core::cluster_packed_backward', mutates_args=())
def cluster_packed_backward(
    grad: Tensor,
    points_values: Tensor,
    alpha: Tensor,
    beta: Tensor,
    center: Tensor,
    similarity: Tensor,
    unit: Tensor,
    length: Tensor,
    held: Tensor,
    weight: Tensor,
    center_rows: int,
    center_cols: int,
    region_rows: int,
    region_cols: int,
    count: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of points and values in one tensor, of alpha and of beta."""
    points, values = points_values.unbind(dim=3)
    problem = problem_of(points, values, center_rows, center_cols, region_rows, region_cols, count)
    grad_packed = points_values.new_empty(points_values.shape)
    state = State(center, similarity, unit, length, held, weight)
    grad_points, grad_values = grad_packed.unbind(dim=3)
    scalars = launch.backward(grad, points, values, alpha, beta, state, grad_points, grad_values, problem)
    return grad_packed, *scalars


@cluster_packed_backward.register_fake
def _(grad: Tensor, points_values: Tensor, alpha: Tensor, beta: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    return tuple(x.new_empty(x.shape) for x in (points_values, alpha, beta))  # type: ignore[return-value]


def _keep(tensors: int) -> Any:
    """Keep the inputs, ``tensors`` of which are tensors, and the state for the backward."""

    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.save_for_backward(*inputs[:tensors], *output[1:])
        ctx.options = inputs[tensors:]
        ctx.mark_non_differentiable(*output[1:])

    return setup_context


def _backward(operator: Any) -> Any:
    def backward(ctx: Any, grad: Tensor, *unused: Any) -> tuple[Tensor | None, ...]:
        return *operator(grad, *ctx.saved_tensors, *ctx.options), *(None for _ in ctx.options)

    return backward


cluster.register_autograd(_backward(cluster_backward), setup_context=_keep(4))
cluster_packed.register_autograd(_backward(cluster_packed_backward), setup_context=_keep(3))
