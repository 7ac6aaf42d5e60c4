"""Whether fused code computes on this machine what plain PyTorch computes in float64: the operator, norm and MLP."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from coc_core.layers import MapNorm, RowwiseMlp
from coc_core.mm.doctor.findings import OK, WRONG, Finding, one_line
from coc_core.mm.doctor.shapes import Shape
from coc_core.ops import cluster, plain
from coc_core.ops.context import is_dead
from coc_core.ops.regions import DENOMINATORS, region_size
from coc_core.variants import VARIANTS

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
ALPHA, BETA = 1.7, -0.3
# Two centers whose z differ by less may change places by rounding in float32.
NEAR_TIE = 4e-6
# Of float32, beside twice the error that plain PyTorch has in the same precision.
ROUNDING = 1e-5
NAMES = ('the output', 'the gradient of points', 'the gradient of values', "alpha's gradient", "beta's gradient")
NORM_NAMES = ('the output', 'the gradient of the map', "the weight's gradient", "the bias's gradient")
MLP_NAMES = (*NORM_NAMES[:2], *(f"{name}'s gradient" for name in ('fc1.weight', 'fc1.bias', 'fc2.weight', 'fc2.bias')))
NORM_WIDTHS = sorted({width for variant in VARIANTS.values() for width in variant.dims})
# The hidden channels of each width.
MLP_WIDTHS = {c: int(c * r) for v in VARIANTS.values() for c, r in zip(v.dims, v.mlp_ratios, strict=True)}
# Of the maps that layers are compared on: several chunks of an image, the last of them shorter.
LAYER_MAP = (2, 37, 29)
SHOWN = 5


class Case(NamedTuple):
    """What is compared."""

    shape: Shape
    dtype: torch.dtype
    denominator: str

    def __str__(self) -> str:
        return f'{self.shape}, {str(self.dtype).removeprefix("torch.")}, denominator {self.denominator!r}'

    @property
    def options(self) -> dict[str, Any]:
        """What `coc_core.ops.cluster` is called with."""
        grids = dict(center_grid=self.shape.center_grid, region_grid=self.shape.region_grid)
        return dict(**grids, denominator=self.denominator)


class Outcome(NamedTuple):
    """What came of a case: '' where all is well, the points near a tie, and the groups that were left out for them."""

    wrong: str
    near_ties: int = 0
    left_out: int = 0


class Inputs(NamedTuple):
    """Points and values as a projection makes them, halves of one tensor, and a gradient of the output."""

    both: Tensor
    upstream: Tensor


def cases(shapes: Sequence[Shape]) -> list[Case]:
    """Return every shape in every precision and with both denominators, the one of today's weights first."""
    return [Case(shape, dtype, d) for d, shape, dtype in itertools.product(DENOMINATORS, shapes, DTYPES)]


def inputs_of(case: Case, device: torch.device, seed: int = 0) -> Inputs:
    """Return random inputs, the same for each device."""
    _, batch, height, width, heads, dim, *_ = case.shape
    generator = torch.Generator().manual_seed(seed)
    both = torch.randn(batch, height, width, 2, heads, dim, generator=generator)
    upstream = torch.randn(batch, height, width, heads, dim, generator=generator)
    return Inputs(both.to(device, case.dtype), upstream.to(device, case.dtype))


def results(case: Case, inputs: Inputs, impl: str, dtype: torch.dtype | None = None) -> list[Tensor]:
    """Return the output and the gradients of points, values, alpha and beta, in ``dtype`` or the case's precision."""
    both, upstream = (x.to(dtype or case.dtype) for x in inputs)
    points, values = (x.detach().requires_grad_() for x in both.unbind(3))
    of_scalars = torch.promote_types(both.dtype, torch.float32)
    # Filled on the device: while a CUDA graph is captured nothing may be copied to it.
    options: dict[str, Any] = dict(dtype=of_scalars, device=both.device, requires_grad=True)
    alpha, beta = (torch.full((1,), x, **options) for x in (ALPHA, BETA))
    out = cluster(points, values, alpha, beta, impl=impl, **case.options)
    return [out.detach(), *torch.autograd.grad(out, [points, values, alpha, beta], upstream)]


def compare(case: Case, impl: str, device: torch.device) -> Outcome:
    """Compare output and gradients with plain PyTorch in float64, and a second run with the first, bit by bit.

    A point that is as near to one center as to another may join either by rounding, which changes its whole cluster:
    the groups of such points are left out, of the output and by a gradient of zero of all others.
    """
    both, upstream = inputs_of(case, device)
    keep, near_ties, left_out = _clear(case, both)
    inputs = Inputs(both, upstream * keep)
    got, again = results(case, inputs, impl), results(case, inputs, impl)
    wrong = [name for name, g, a in zip(NAMES, got, again, strict=True) if not _same_bits(g, a)]
    if wrong:
        return Outcome(f'a second run has other bits in {wrong[0]}', near_ties, left_out)
    exact, rounded = results(case, inputs, 'plain', torch.float64), results(case, inputs, 'plain')
    for each in (got, exact, rounded):
        each[0] = each[0] * keep
    for name, g, r, e in zip(NAMES, got, rounded, exact, strict=True):
        # Terms of a sum over all points cancel out, their rounding does not.
        terms = upstream.numel() if e.numel() == 1 else 1
        if off := _unexplained(name, g, r, e, terms):
            return Outcome(off, near_ties, left_out)
    return Outcome('', near_ties, left_out)


def _unexplained(name: str, got: Tensor, rounded: Tensor, exact: Tensor, terms: int) -> str:
    """Return an error that rounding does not explain, in words, or ''; ``terms`` is of how many numbers it is a sum."""
    scale = max(1.0, float(exact.abs().max()), float(terms) ** 0.5)
    error, allowed = _largest(got, exact), 2 * _largest(rounded, exact) + ROUNDING * scale
    # Not finite is not equal.
    return '' if error <= allowed else f'{name} is off by {error:.1e}, where rounding explains {allowed:.1e}'


def compare_norms(impl: str, device: torch.device) -> Iterator[Finding]:
    """Compare the norm of maps as wide as published ones; its parameters are in float32."""

    def results(impl: str, x: Tensor, upstream: Tensor, dtype: torch.dtype) -> list[Tensor]:
        norm = MapNorm(x.shape[3], impl=impl).to(x.device, dtype)
        with torch.no_grad():
            # Numbers that half precision holds.
            norm.weight.copy_(torch.arange(x.shape[3]) % 5 - 1.75)
            norm.bias.copy_(torch.arange(x.shape[3]) % 3 - 0.5)
        return _gradients(norm, x, upstream)

    yield _compare_layers('norm', NORM_NAMES, NORM_WIDTHS, torch.float32, results, impl, device)


def compare_mlps(impl: str, device: torch.device) -> Iterator[Finding]:
    """Compare MLPs as wide as published ones; all is in the precision of the map."""

    def results(impl: str, x: Tensor, upstream: Tensor, dtype: torch.dtype) -> list[Tensor]:
        channels = x.shape[3]
        mlp = RowwiseMlp(channels, MLP_WIDTHS[channels], impl=impl).to(x.device, dtype)
        generator = torch.Generator().manual_seed(channels)
        with torch.no_grad():
            for parameter in mlp.parameters():
                # Numbers that half precision holds.
                parameter.copy_(torch.randint(-8, 9, parameter.shape, generator=generator) / 64)
        return _gradients(mlp, x, upstream)

    yield _compare_layers('mlp', MLP_NAMES, MLP_WIDTHS, None, results, impl, device)


def _gradients(layer: nn.Module, x: Tensor, upstream: Tensor) -> list[Tensor]:
    """Return the output and all gradients."""
    x = x.detach().requires_grad_()
    out = layer(x)
    return [out.detach(), *torch.autograd.grad(out, [x, *layer.parameters()], upstream.to(out.dtype))]


def _compare_layers(
    word: str,
    names: Sequence[str],
    widths: Iterable[int],
    precision: torch.dtype | None,
    results: Callable[[str, Tensor, Tensor, torch.dtype], list[Tensor]],
    impl: str,
    device: torch.device,
) -> Finding:
    """Compare a layer on maps in each precision with float64, and a second run with the first, bit by bit.

    Its parameters are in ``precision``, or that of the map. ``results``, called with implementation, map, upstream
    gradient and the parameters' type, returns what has ``names``.
    """
    wanted, told = list(itertools.product(widths, DTYPES)), list[str]()
    for channels, dtype in wanted:
        generator, own = torch.Generator().manual_seed(channels), precision or dtype
        shape = *LAYER_MAP, channels
        x, upstream = (torch.randn(shape, generator=generator).to(device, dtype) for _ in range(2))
        got, again = (results(impl, x, upstream, own) for _ in range(2))
        rounded, exact = (results('plain', x.to(wide), upstream, wide) for wide in (own, torch.float64))
        off = [n for n, g, a in zip(names, got, again, strict=True) if not _same_bits(g, a)]
        off = [f'a second run has other bits in {name}' for name in off]
        for name, g, r, e in zip(names, got, rounded, exact, strict=True):
            # What is handed on in half precision is rounded to it.
            off.append(_unexplained(name, g, r.to(g.dtype), e, x.numel() // channels))
        told += [f'{channels} channels, {str(dtype).removeprefix("torch.")}: {reason}' for reason in off if reason][:1]
    if told:
        says = (
            f'impl={impl!r} differs from plain PyTorch in {len(told)} of {len(wanted)} cases: {"; ".join(told[:SHOWN])}'
        )
        return Finding(word, f'{says}: set `--cfg-options model.backbone.impl=plain`, and report this', WRONG)
    says = f'impl={impl!r} equals plain PyTorch in float64, twice bit for bit, in {len(wanted)} cases'
    return Finding(word, says, OK)


def _clear(case: Case, both: Tensor) -> tuple[Tensor, int, int]:
    """Return which groups have no point near a tie, as a map of ones and zeros; such points; their groups."""
    points = both.select(3, 0).double()
    alpha, beta = (torch.tensor([x], dtype=torch.float64, device=both.device) for x in (ALPHA, BETA))
    steps = plain.steps(alpha, beta, **case.options)
    size = region_size(points, case.shape.region_grid)
    points_GND = steps.cut(points)
    z_GMN = steps.similarity(points_GND, steps.pool(points_GND, size))
    if z_GMN.shape[1] == 1:
        return torch.ones_like(both[:, :, :, 0, :, :1]), 0, 0
    first_GN, second_GN = z_GMN.topk(2, dim=1).values.unbind(1)
    near_GN = first_GN - second_GN < NEAR_TIE
    clear_GN = ~near_GN.any(dim=1, keepdim=True).expand_as(near_GN)
    keep = steps.join(clear_GN[..., None].to(both.dtype), size, points.shape[3])
    return keep, int(near_GN.sum()), int(near_GN.any(dim=1).sum())


def _largest(got: Tensor, want: Tensor) -> float:
    return float((got.double() - want).abs().max())


def _same_bits(a: Tensor, b: Tensor) -> bool:
    return torch.equal(a.nan_to_num(nan=1.5), b.nan_to_num(nan=1.5))


def compare_all(wanted: Sequence[Case], impl: str, device: torch.device, seconds: float) -> Iterator[Finding]:
    """Compare as many cases as the time allows, and tell of them in one finding."""
    begin, count, told = time.monotonic(), Counter[str](), list[str]()
    for case in wanted:
        if time.monotonic() - begin > seconds:
            break
        try:
            outcome = compare(case, impl, device)
        except Exception as error:
            outcome = Outcome(f'it stops with {one_line(error)}')
        count.update(cases=1, near_ties=outcome.near_ties, left_out=outcome.left_out, wrong=bool(outcome.wrong))
        if outcome.wrong:
            told.append(f'{case}: {outcome.wrong}')
        if is_dead(device):
            told.append('the GPU takes no further call after this')
            break
    facts = dict(impl=impl, of=len(wanted), seconds=round(time.monotonic() - begin, 1), **count, told=told)
    rest = len(wanted) - count['cases']
    later = f'; {rest} more were left for want of time (what is compiled is kept: run this again)' if rest else ''
    ties = f'{count["near_ties"]} points near a tie and the {count["left_out"]} groups around them left out'
    if told:
        more = f' (and {len(told) - SHOWN} more, see --json)' if len(told) > SHOWN else ''
        says = f'impl={impl!r} differs from plain PyTorch in {count["wrong"]} of {count["cases"]} cases: '
        says += f'{"; ".join(told[:SHOWN])}{more}: set `--cfg-options model.backbone.impl=plain`, and report this'
        yield Finding('equality', says, WRONG, facts)
    else:
        says = f'impl={impl!r} equals plain PyTorch in float64, twice bit for bit, in {count["cases"]} cases; {ties}'
        yield Finding('equality', says + later, OK, facts)
