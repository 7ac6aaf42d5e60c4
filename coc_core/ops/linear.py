"""What fused code asks of the linear layers and scalars that it computes with itself."""

from __future__ import annotations

import torch
import torch.fx
from torch import Tensor, nn

from coc_core.ops.context import autocast_dtype


def unusual_linear(owner: nn.Module, name: str) -> str:
    """Return why fused code, which reads weight and bias alone, cannot stand for a layer's part, in words, or ''."""
    # Three times as fast as getattr; asked in every forward.
    linear = owner._modules[name]
    if type(linear) is not nn.Linear:
        return f'{name} is no nn.Linear but {type(linear).__name__}'
    if not is_bare(linear):
        return f'{name} has hooks, or a forward of its own'
    # Parallel replicas and flattened parameters are attributes.
    if linear._parameters.get('bias') is None and getattr(linear, 'bias', None) is None:
        return f'{name} has no bias'
    return ''


def unusual_scalar(owner: nn.Module, name: str) -> str:
    """Return why fused code, which reads one number, cannot stand for a layer's scalar, in words, or ''."""
    value = getattr(owner, name)
    # While torch.fx traces, it has no size, and nothing fused is asked for.
    if isinstance(value, torch.fx.Proxy) or (isinstance(value, Tensor) and value.numel() == 1):
        return ''
    return f'{name} is no tensor of one element'


def is_bare(module: nn.Module) -> bool:
    """Tell whether a module is called as its class has it: without hooks, and with the class's forward."""
    hooks = module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
    return not hooks and 'forward' not in module.__dict__


def fold_scale(linear: nn.Linear, scale: Tensor | None, x: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return weight and bias of ``scale * linear(...)``, and the scale where it is left to be multiplied by.

    Folding saves a pass over the map, and in training a copy of it, for one over the weight: worth it where the map
    ``x`` [..., C] has more positions than the layer has inputs. A layer scale of 1e-5 times a weight of 0.02 is less
    than float16 holds.
    """
    few = x.shape[:-1].numel() < linear.in_features
    if (
        scale is None
        or few
        or torch.float16 in (autocast_dtype(x), linear.weight.dtype)
        or torch.compiler.is_compiling()
    ):
        return linear.weight, linear.bias, scale
    return scale[:, None] * linear.weight, scale * linear.bias, None


def add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """Add ``left @ right`` to ``total``, which may be of higher precision."""
    if total.dtype == left.dtype:
        total.addmm_(left, right)
    else:
        total += left @ right
