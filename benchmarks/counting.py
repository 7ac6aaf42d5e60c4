"""Parameters, floating-point operations and bytes, counted and not measured."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from coc_core.ops import set_implementation


def parameter_count(model: nn.Module) -> int:
    """Return the number of parameters."""
    return sum(p.numel() for p in model.parameters())


def tensors_of(outputs: Any) -> list[Tensor]:
    """Return the tensors of one output or of several."""
    return [outputs] if isinstance(outputs, Tensor) else list(outputs)


def nbytes(tensors: Iterable[Tensor]) -> int:
    """Return the bytes of the tensors' elements, each once."""
    return sum(t.numel() * t.element_size() for t in tensors)


def count_flops(forward: Callable[..., Any], inputs: list[Tensor], mode: str) -> int:
    """Return the operations of convolutions and matrix products; a multiplication with its addition counts as two.

    A training step has three times those of forward: two products for each, one for its input and one for its weight.
    (PyTorch's counter takes a convolution in groups for a full one in backward.)

    Args:
        forward: Plain operators only: a custom operator counts as nothing.
        inputs: On any device; on ``meta`` nothing is computed.
        mode: ``'eval'``, or ``'train'``, forward and backward.
    """
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        forward(*inputs)
    return counter.get_total_flops() * (3 if mode == 'train' else 1)


def plain_copy(model: nn.Module) -> nn.Module:
    """Return a copy without memory for its numbers (``meta``), in which a Context Cluster is of plain operators."""
    plain = copy.deepcopy(model).to('meta')
    set_implementation(plain, 'plain')
    return plain
