"""What is looked at, in which order."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import partial

from coc_core.mm.doctor import gpu, machine, packages
from coc_core.mm.doctor.findings import Finding, Probe, findings

PROBES = (
    Probe('Python', packages.python),
    Probe('needed packages', packages.needed),
    Probe('torchvision', packages.torchvision),
    Probe('coc_core', packages.project),
    Probe('triton', packages.extra),
    Probe('mm* packages', packages.openmmlab),
    Probe('mmcv operators', packages.mmcv_operators),
    Probe('compilers', machine.compiler_tools),
    Probe('cores', machine.cores),
    Probe('threads', machine.threads),
    Probe('memory', machine.memory),
    Probe('disk', machine.disk),
    Probe('/dev/shm', machine.shared_memory),
    Probe('GPU', gpu.gpus),
)
# Kernels are compiled when they are first called, which takes most of the time, and are kept.
COMPARE_SECONDS = 80.0
SPEED_BATCH = 64


def examine(*, on_gpu: bool) -> Iterator[Finding]:
    """Yield what is found of everything, as it is found; with ``on_gpu`` also what the kernels do on a GPU."""
    yield from findings(PROBES)
    if on_gpu and _has_kernels():
        print(f'The kernels are compared with plain PyTorch: some {COMPARE_SECONDS + 30:.0f} s.', file=sys.stderr)
        yield from examine_operator('triton', 'cuda')


def examine_operator(impl: str, device: str, seconds: float = COMPARE_SECONDS) -> Iterator[Finding]:
    """Yield what is found of an implementation of the operator on a device.

    Args:
        impl: Its name.
        device: Such as ``'cuda'``.
        seconds: After these no further case is compared.
    """
    # They need torch, which may be missing where all else is told.
    import torch

    from coc_core.mm.doctor import comparison, launching, shapes

    place, published = torch.device(device), shapes.published_shapes()
    # One whose regions are handled by one program each, and one whose regions are cut into chunks.
    extremes = published[0], max(published, key=lambda shape: shape.kernel[0] * shape.kernel[1])
    few = [comparison.Case(s, dtype, 'similarity') for s in extremes for dtype in comparison.DTYPES]
    timed = [published[0]._replace(batch=SPEED_BATCH), max(published, key=lambda s: s.height * s.width * s.center_grid)]
    probes = [
        Probe('equality', partial(comparison.compare_all, comparison.cases(published), impl, place, seconds)),
        Probe('norm', partial(comparison.compare_norms, impl, place)),
        Probe('mlp', partial(comparison.compare_mlps, impl, place)),
        Probe('one bad point', partial(launching.bad_point, impl, place, few)),
        *([Probe('side stream', partial(launching.side_stream, impl, place, few))] if place.type == 'cuda' else []),
        *([Probe('CUDA graph', partial(launching.graph_replay, impl, place, few))] if place.type == 'cuda' else []),
        Probe('RoIAlign, nms', partial(launching.detection_operators, place)),
        Probe('speed', partial(launching.speed, impl, place, timed)),
    ]
    yield from findings(probes)


def _has_kernels() -> bool:
    """Tell whether there is a GPU that the kernels are for; what it lacks else has been told."""
    try:
        import torch

        from coc_core.ops.triton import trial

        return torch.cuda.is_available() and not trial.lacks(torch.cuda.current_device())
    except Exception:
        return False
