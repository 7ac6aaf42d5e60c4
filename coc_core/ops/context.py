"""What surrounds a call: precision and autocast, device, tracing and transforms, and how often it is differentiated."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import wraps
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn import Parameter

HALF = (torch.float16, torch.bfloat16)
SECOND_DERIVATIVE = "Fused code is differentiated once only: for second derivatives build the model with impl='plain'."


def working_dtype(x: Tensor) -> torch.dtype:
    """Return the precision that is computed in: float32 for half precision, else the tensor's own."""
    return torch.float32 if x.dtype in HALF else x.dtype


def is_dead(device: torch.device) -> bool:
    """Tell whether a device refuses all further calls of this process, as after an illegal memory access."""
    if device.type != 'cuda':
        return False
    try:
        torch.cuda.synchronize(device)
    except RuntimeError:
        return True
    return False


def widen(x: Tensor) -> Tensor:
    """Return half precision as float32, where neither a sum nor the norm of a small vector loses its meaning."""
    return x.to(working_dtype(x))


def without_autocast(x: Any) -> AbstractContextManager[Any]:
    """Return a context in which operators compute in the precision that they are given."""
    # While torch.fx traces, x is no tensor. A context that changes nothing would be seen in an exported graph.
    on = isinstance(x, Tensor) and autocast_is_on(x.device.type)
    return torch.autocast(x.device.type, enabled=False) if on else nullcontext()


def autocast_is_on(device: str) -> bool:
    """Tell whether autocast is on for a type of device; not all of them have it."""
    return torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)


def autocast_dtype(x: Tensor) -> torch.dtype:
    """Return the precision that a matrix product of ``x`` has here."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if autocast_is_on(device) and x.dtype != torch.float64 else x.dtype


def cast_to_autocast(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Return the tensors in the precision of autocast, where that is on for their device."""
    if not torch.is_autocast_enabled(tensors[0].device.type):
        return tensors
    dtype = autocast_dtype(tensors[0])
    return tuple(t.to(dtype) for t in tensors)


def traced_by(x: Tensor) -> str:
    """Return what makes a graph of a call or transforms it, in words, or '' where the call is an ordinary one.

    Compilers and exporters, and whoever passes tensors of another type, see the operators that are called;
    transforms need each operator to be differentiable as often as they like.
    """
    if torch.compiler.is_compiling():
        return 'a compiler or exporter'
    if torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]
        return 'torch.jit.trace'
    if type(x) not in (Tensor, Parameter):
        return f'an input of type {type(x).__name__}'
    if torch._C._functorch.peek_interpreter_stack() is not None:
        return 'torch.func'
    return 'forward-mode derivatives' if forward_ad._current_level >= 0 else ''


class _NeverAgain(torch.autograd.Function):
    """Identity whose derivative is refused."""

    @staticmethod
    def forward(ctx: Any, grad: Tensor) -> Tensor:
        return grad.view_as(grad)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        raise RuntimeError(SECOND_DERIVATIVE)


def differentiated_once(backward: Callable[..., Any]) -> Any:
    """Decorate the backward of an autograd function: it computes in the precision of what it kept, and only once.

    Second derivatives raise a RuntimeError that says which implementation has them.
    """

    @wraps(backward)
    def wrapped(ctx: Any, grad: Tensor) -> Any:
        with torch.no_grad(), without_autocast(grad):
            grads = backward(ctx, grad)
        if not torch.is_grad_enabled():
            return grads
        once = (g if g is None else _NeverAgain.apply(g.detach().requires_grad_()) for g in grads)  # type: ignore[no-untyped-call]
        return tuple(once)

    return wrapped
