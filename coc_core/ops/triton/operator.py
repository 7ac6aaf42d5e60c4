"""Registers the operator with PyTorch: autograd, autocast, compilers and exporters see one operator.

Two forms share everything: points and values apart, or as the halves of one tensor, the output of the projection that
makes both; then the gradient is one tensor, too. Arguments are plain ints, as a registered operator takes no pairs.
Autocast leaves the operators alone: half-precision maps are read as they are and computed in float32.
"""

from typing import Any

import torch
from torch import Tensor

from coc_core.ops.context import SECOND_DERIVATIVE
from coc_core.ops.triton import launch
from coc_core.ops.triton.launch import State

OPTIONS = 'int center_rows, int center_cols, int region_rows, int region_cols, bool count'


def _register(name: str, *maps: str) -> Any:
    """Register ``coc_core::name`` and its backward; return the operator.

    It takes the ``maps``, points [B, H, W, K, D] and values [B, H, W, K, D'] or both in one, [B, H, W, 2, K, D], then
    alpha, beta and the options. It returns the mixed map, and after it what the backward needs (`launch.State`).
    """
    leaves = [*maps, 'alpha', 'beta']
    number, forward_name, backward_name = len(leaves), f'coc_core::{name}', f'coc_core::{name}_backward'

    def signature(names: Any, results: int) -> str:
        tensors = ', '.join(f'Tensor {tensor}' for tensor in names)
        return f'({tensors}, {OPTIONS}) -> ({", ".join(["Tensor"] * results)})'

    def apart(tensors: Any) -> Any:
        return tensors[: len(maps)] if len(maps) == 2 else tensors[0].unbind(dim=3)

    def sizes_of(arguments: Any) -> launch.Problem:
        center_rows, center_cols, region_rows, region_cols, count = arguments[-5:]
        points, values = apart(arguments)
        return launch.problem_of(points, values, (center_rows, center_cols), (region_rows, region_cols), count)

    def forward(*arguments: Any) -> tuple[Tensor, ...]:
        mixed, state = launch.forward((*apart(arguments), *arguments[len(maps) : number]), sizes_of(arguments))
        return mixed, *state

    def allocate(*arguments: Any) -> tuple[Tensor, ...]:
        mixed, state = launch.allocate(sizes_of(arguments), apart(arguments)[1])
        return mixed, *state

    def backward(grad: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
        grads = [x.new_empty(x.shape) for x in arguments[: len(maps)]]
        inputs, state = (*apart(arguments), *arguments[len(maps) : number]), State(*arguments[number:-5])
        return *grads, *launch.backward(grad, inputs, state, apart(grads), sizes_of(arguments))

    def allocate_backward(grad: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
        return tuple(x.new_empty(x.shape) for x in arguments[:number])

    def keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.save_for_backward(*inputs[:number], *output[1:])
        ctx.options = inputs[number:]
        ctx.mark_non_differentiable(*output[1:])

    def differentiate(ctx: Any, grad: Tensor, *unused: Any) -> tuple[Tensor | None, ...]:
        registered = getattr(torch.ops.coc_core, f'{name}_backward')
        return *registered(grad, *ctx.saved_tensors, *ctx.options), *(None for _ in ctx.options)

    def refuse(ctx: Any, *grads: Tensor) -> None:
        raise RuntimeError(SECOND_DERIVATIVE)

    torch.library.define(forward_name, signature(leaves, 1 + len(State._fields)))
    torch.library.define(backward_name, signature(['grad', *leaves, *State._fields], number))
    for full_name, compute, fake in ((forward_name, forward, allocate), (backward_name, backward, allocate_backward)):
        torch.library.impl(full_name, 'default', compute)
        torch.library.register_fake(full_name, fake)
    torch.library.register_autograd(forward_name, differentiate, setup_context=keep)
    torch.library.register_autograd(backward_name, refuse)
    return getattr(torch.ops.coc_core, name).default


cluster = _register('cluster', 'points', 'values')
cluster_packed = _register('cluster_packed', 'points_values')
