"""Mixed precision on a CPU, in bfloat16: mmengine's own asserts a GPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS
from mmengine.runner import autocast
from torch import nn


@OPTIM_WRAPPERS.register_module()
class Bfloat16OptimWrapper(OptimWrapper):  # type: ignore[misc]
    """mmengine's OptimWrapper whose models run under autocast in bfloat16, on a CPU too.

    bfloat16 has the range of float32, so that no loss is scaled, as AmpOptimWrapper's is for float16. Weights,
    gradients and the optimizer's state stay float32, and checkpoints are those of OptimWrapper.
    """

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Surround the forward of a training step."""
        with super().optim_context(model), autocast(dtype=torch.bfloat16):
            yield


def processor_has_bfloat16() -> bool:
    """Tell whether the processor has instructions for bfloat16; without them it is slower than float32."""
    found = torch.cpu.get_capabilities()
    # Of x86, where either will do, and of ARM.
    return any(found.get(name, False) for name in ('avx512_bf16', 'amx_bf16', 'bf16'))
