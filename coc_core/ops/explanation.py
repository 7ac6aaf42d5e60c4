"""Tells which code runs, and switches a model to other code."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from coc_core.ops.dispatch import check_impl, choose, is_served


def explain(model: nn.Module, images: Tensor) -> list[tuple[str, str, str, str]]:
    """Print for each layer which implementation serves it for these images, which function that is, and why.

    The model runs once, in the mode and under the autocast that it is in, without gradients.

    Args:
        model: A `coc_core.ContextCluster`, or a model around one that takes the images alone.
        images: As the model takes them.

    Returns:
        What was printed, in the order of the calls: layer, implementation, function, reason.
    """
    told: list[tuple[str, str, str, str]] = []

    def note(name: str, layer: Any, inputs: tuple[Any, ...]) -> None:
        function: Any = type(layer)
        row, why = choose(layer, inputs[0]) if is_served(layer) else (None, 'a mixer of its own')
        if row is not None:
            own = 'forward' in getattr(layer, 'overridden', tuple)()
            steps = layer.forward if own else layer.forward_plain
            function = steps if row.name == 'plain' else getattr(row.function, 'args', [row.function])[0]
        told.append((name, row.name if row else 'own', f'{function.__module__}.{function.__qualname__}', why))

    layers = [(name, layer) for name, layer in model.named_modules() if is_served(layer) or name.endswith('.mixer')]
    handles = [layer.register_forward_pre_hook(lambda m, x, n=name: note(n, m, x)) for name, layer in layers]
    try:
        with torch.no_grad():
            model(images)
    finally:
        for handle in handles:
            handle.remove()
    widths = [max(map(len, column)) for column in zip(*told, strict=True)]
    for cells in told:
        print('  '.join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip())
    return told


def set_implementation(model: nn.Module, impl: str) -> None:
    """Have all layers of a model that know several implementations use this one, as if built with ``impl``.

    Raises:
        UserError: The name is neither ``'auto'`` nor in `coc_core.ops.implementations`.
    """
    check_impl(impl)
    for layer in model.modules():
        if hasattr(layer, 'impl'):
            layer.impl = impl  # type: ignore[assignment]
