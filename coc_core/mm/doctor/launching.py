"""How kernels behave where they are launched in other ways, and how fast they are."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib.util import find_spec

import torch
from torch import Tensor
from torch.utils.benchmark import Timer

from coc_core.mm.doctor.comparison import DTYPES, Case, Inputs, inputs_of, results
from coc_core.mm.doctor.findings import OK, WRONG, Finding
from coc_core.mm.doctor.shapes import Shape

MEASURED_SECONDS = 0.1
# Without these files the set-up takes neither the environment for complete nor a wheel that is kept.
KEPT = '.venv/context-cluster-setup ~/.cache/context-cluster/wheels'
COMPILE_ANEW = f'`rm -r {KEPT} && FORCE_CUDA=1 make setup` compiles them anew'


def bad_point(impl: str, device: torch.device, cases: Sequence[Case]) -> Iterator[Finding]:
    """Look at what a NaN or an infinity in one point does: its own output tells of it, other groups do not change."""
    wrong = []
    for case in cases:
        clean = inputs_of(case, device)
        want = results(case, clean, impl)
        height, width = (side // case.shape.region_grid for side in case.shape[2:4])
        for half, bad in itertools.product((0, 1), (math.nan, math.inf)):
            both = clean.both.clone()
            both[0, 0, 0, half, 0, 0] = bad
            got = results(case, Inputs(both, clean.upstream), impl)
            kind = f'{bad} in {("points", "values")[half]}, {case}'
            if got[0][0, 0, 0, 0].isfinite().all():
                wrong.append(f'{kind}: the output of that point is finite')
            for g, w in zip(got[:3], want[:3], strict=True):
                for x in (g, w):
                    x[0, :height, :width, 0] = 0
                if not torch.equal(g, w):
                    wrong.append(f'{kind}: groups of other points change')
    yield _told('one bad point', wrong, 'a NaN or an infinity stays in its group')


def side_stream(impl: str, device: torch.device, cases: Sequence[Case]) -> Iterator[Finding]:
    """Look at a run on a stream beside the default one."""
    wrong = []
    for case in cases:
        inputs = inputs_of(case, device)
        want = results(case, inputs, impl)
        stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(stream):
            got = results(case, inputs, impl)
        torch.cuda.current_stream(device).wait_stream(stream)
        if not _equal(got, want):
            wrong.append(f'{case}: other bits than on the default stream')
    yield _told('side stream', wrong, 'the same bits as on the default stream')


def graph_replay(impl: str, device: torch.device, cases: Sequence[Case]) -> Iterator[Finding]:
    """Look at a CUDA graph of forward and backward, replayed with other inputs than it was captured with."""
    wrong = []
    for case in cases:
        inputs, other = (inputs_of(case, device, seed) for seed in (0, 1))
        want = results(case, other, impl)
        stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(stream):
            results(case, inputs, impl)
        torch.cuda.current_stream(device).wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            got = results(case, inputs, impl)
        for captured, fresh in zip(inputs, other, strict=True):
            captured.copy_(fresh)
        graph.replay()
        torch.cuda.synchronize(device)
        if not _equal(got, want):
            wrong.append(f'{case}: other bits than without a graph')
    yield _told('CUDA graph', wrong, 'a replay has the same bits as a call')


def _equal(got: Sequence[Tensor], want: Sequence[Tensor]) -> bool:
    return all(torch.equal(g, w) for g, w in zip(got, want, strict=True))


def _told(name: str, wrong: Sequence[str], well: str) -> Finding:
    remedy = 'set `--cfg-options model.backbone.impl=plain`, and report this'
    return Finding(name, f'{wrong[0]}: {remedy}', WRONG, dict(told=list(wrong))) if wrong else Finding(name, well, OK)


def detection_operators(device: torch.device) -> Iterator[Finding]:
    """Look at mmcv's RoIAlign and nms on a device, beside those of the CPU."""
    if find_spec('mmcv') is None or find_spec('mmcv._ext') is None:
        return
    from mmcv.ops import nms, roi_align

    generator = torch.Generator().manual_seed(0)
    maps = torch.rand(1, 8, 50, 68, generator=generator)
    corners = torch.rand(300, 2, generator=generator) * torch.tensor([200.0, 150.0])
    boxes = torch.cat([corners, corners + 4 + 60 * torch.rand(300, 2, generator=generator)], dim=1)
    scores, images = torch.rand(300, generator=generator), torch.zeros(300, 1)

    def run(at: torch.device) -> tuple[Tensor, Tensor]:
        x, b, s, i = (tensor.to(at) for tensor in (maps, boxes, scores, images))
        pooled = roi_align(x, torch.cat([i, b], dim=1), (7, 7), 0.25, 0, 'avg', True)
        return pooled.cpu(), nms(b, s, 0.5)[1].cpu()

    (pooled, kept), (want_pooled, want_kept) = run(device), run(torch.device('cpu'))
    wrong = []
    if not torch.allclose(pooled, want_pooled, rtol=1e-4, atol=1e-4):
        wrong.append('RoIAlign')
    if not torch.equal(kept, want_kept):
        wrong.append('nms')
    if wrong:
        says = f"{' and '.join(wrong)} of mmcv differ from the CPU's: {COMPILE_ANEW}"
        yield Finding('RoIAlign, nms', says, WRONG)
    else:
        yield Finding('RoIAlign, nms', 'RoIAlign and nms are those of the CPU', OK)


def speed(impl: str, device: torch.device, shapes: Sequence[Shape]) -> Iterator[Finding]:
    """Time forward and backward of an implementation beside plain PyTorch, and advise."""
    rows, ratios = [], []
    for case in (Case(shape, dtype, 'similarity') for shape in shapes for dtype in DTYPES):
        inputs = inputs_of(case, device)
        own, plain = (_seconds(partial(results, case, inputs, each)) for each in (impl, 'plain'))
        rows.append({'case': str(case), f'{impl}_ms': 1e3 * own, 'plain_ms': 1e3 * plain})
        ratios.append(plain / own)
    yield Finding('speed', advice(impl, ratios), OK, dict(rows=rows))


def advice(impl: str, ratios: Sequence[float]) -> str:
    """Return one line on what to set, of how often ``impl`` goes into the time of plain PyTorch in each case."""
    mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
    spread = f'{min(ratios):.1f}x to {max(ratios):.1f}x in {len(ratios)} cases, forward and backward'
    if mean >= 1:
        return f'{impl} is {mean:.1f}x as fast as plain here ({spread}): leave impl=auto'
    return f'{impl} is {mean:.1f}x as fast as plain here ({spread}): set `--cfg-options model.backbone.impl=plain`'


def _seconds(call: Callable[[], object]) -> float:
    # Threads of its own choice would slow a CPU down: the timer takes one unless it is told otherwise.
    timer = Timer('call()', globals=dict(call=call), num_threads=torch.get_num_threads())
    return float(timer.blocked_autorange(min_run_time=MEASURED_SECONDS).median)
