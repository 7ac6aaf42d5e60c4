"""Which steps of a layer are the user's, that they are called as the page calls them, and return what it needs.

PyTorch broadcasts: centers of [G, D] would mix each group with all others, without a word.
"""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch.fx
from torch import Tensor, nn

from coc_core.errors import UserError

# torch.fx records a call as one node and does not look inside, where sizes decide.
torch.fx.wrap('returned')

# Nearer to the name of a step than this is a slip of the pen: 'assing', but not 'similarities'.
_NEAR = 0.83
# What a step returns by the sizes of what it takes; None for any size.
_SHAPES: Mapping[str, tuple[str, Callable[..., tuple[Any, ...]]]] = {
    # One set of centers for all groups is right, too: [1, M, D].
    'pool': ('G, M, D', lambda x, size: (None, None, None)),
    'similarity': ('G, M, N', lambda points, centers: (points.shape[0], centers.shape[1], points.shape[1])),
    'assign': ('G, M, N', lambda z: z.shape),
    'aggregate': ('G, M, D', lambda s, member, values, centers: (*s.shape[:2], None)),
    'dispatch': ('G, N, D', lambda s, held: (s.shape[0], s.shape[2], None)),
}


def own_methods(layer: nn.Module, stock: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of the stock methods in whose place a layer, or its class, has its own."""
    kind, own = type(layer), layer.__dict__
    return tuple(name for name, method in stock.items() if getattr(kind, name) is not method or name in own)


def overrides(layer: nn.Module, stock: Mapping[str, Any]) -> str:
    """Return `own_methods` in words, or ''."""
    names = own_methods(layer, stock)
    return f'{type(layer).__name__} overrides {", ".join(names)}' if names else ''


def guard_steps(kind: type, stock: Mapping[str, Any]) -> None:
    """Check the steps that a class has of its own, and have what they return checked.

    Args:
        kind: A subclass of the stock layer.
        stock: The stock layer's steps by name.

    Raises:
        UserError: A method is called nearly as a step, or a step takes other arguments than the stock one.
    """
    base = inspect.getmro(kind)[1]
    for name, method in list(vars(kind).items()):
        if not inspect.isfunction(method) or name.startswith('_'):
            continue
        near = difflib.get_close_matches(name, stock, n=1, cutoff=_NEAR)
        if name in stock:
            _check_arguments(f'{kind.__name__}.{name}', method, stock[name])
            if name in _SHAPES:
                setattr(kind, name, _checked(kind, name, method))
        elif near and not hasattr(base, name) and getattr(kind, near[0]) is stock[near[0]]:
            raise UserError(
                f'{kind.__name__}.{name} is no step, and nothing would call it: call it {near[0]}, or _{name} if no '
                'step is meant.'
            )


def _check_arguments(title: str, method: Callable[..., Any], stock: Callable[..., Any]) -> None:
    taken = inspect.signature(stock).parameters
    try:
        inspect.signature(method).bind(*taken)
    except TypeError as error:
        raise UserError(f'{title} must take ({", ".join(taken)}): {error}.') from None


def _checked(kind: type, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def step(self: Any, *inputs: Any, **named: Any) -> Any:
        return returned(method(self, *inputs, **named), f'{kind.__name__}.{name}', name, *inputs, *named.values())

    return step


def returned(out: Any, title: str, name: str, *inputs: Any) -> Any:
    """Return what a step made.

    Args:
        out: What it made.
        title: What messages call the step.
        name: The step.
        inputs: What it took.

    Raises:
        UserError: It is no tensor, or has another shape or precision than the next step needs.
    """
    axes, shape_of = _SHAPES[name]
    if not isinstance(out, Tensor):
        raise UserError(f'{title} returned {type(out).__name__}: it returns a tensor [{axes}].')
    wanted = shape_of(*inputs)
    if out.ndim != len(wanted) or any(b is not None and a != b for a, b in zip(out.shape, wanted, strict=True)):
        sizes = ', '.join(f'{axis}={size}' for axis, size in zip(axes.split(', '), wanted, strict=True) if size)
        raise UserError(f'{title} returned {list(out.shape)}: it returns [{axes}]' + (f', {sizes}.' if sizes else '.'))
    if out.is_floating_point() and out.dtype != inputs[0].dtype:
        raise UserError(
            f'{title} returned {out.dtype} for {inputs[0].dtype}, in which the steps compute whatever the precision of '
            f'the model is: cast what it makes by .to({inputs[0].dtype}).'
        )
    return out
