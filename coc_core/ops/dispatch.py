"""Decides which code runs: one table, for the clustering layer, the clustering operator, the MLP and the norm alike.

A layer asks `choose` in every forward. The first row of `TABLE` that fits is taken: with ``impl='auto'`` any row, with
another name the row of that name. A layer whose mathematics was changed, by a subclass or by other parts, is served by
its own steps: fused code computes what the stock layer does. With ``impl='auto'`` Triton's kernels are tried before
they serve: see ``coc_core/ops/triton/trial.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from typing import Any, NamedTuple

import torch
from torch import Tensor

from coc_core.errors import UserError
from coc_core.ops import mlp, norm, plain, reference, triton
from coc_core.ops.context import HALF, autocast_dtype, traced_by
from coc_core.ops.cpu import mixer as cpu_mixer
from coc_core.ops.cpu import slabs
from coc_core.ops.triton import plan, trial

_INSTEAD = "choose impl='auto', or 'plain', which runs everywhere"
_TRITON = find_spec('triton') is not None


class Call(NamedTuple):
    """What decides: type of device, precision, who traces (`traced_by`), centers of a region, channels of a head.

    Of an MLP the channels are those of its map.
    """

    device: str
    dtype: torch.dtype
    traced_by: str
    centers: int = 0
    dim: int = 0


@dataclass(frozen=True)
class Row:
    """One implementation of an operation, and the calls that it takes.

    Attributes:
        name: ``'plain'``, PyTorch as the layers state it; ``'reference'``, literally the paper; ``'cpu'`` and
            ``'triton'``, fused for CPUs and GPUs.
        function: What is called.
        device: The type of device that it is for; None for any.
        dtypes: What it computes in; None for any floating type.
        compiled: Whether compilers and exporters may see it.
        transformed: Whether it may be traced by other means, transformed, and differentiated any number of times.
        kernels: Whether it launches Triton's kernels.
        max_centers: The most centers of a region.
        max_dim: The most channels of a head, or of an MLP's map.
        max_held: The most channels of all centers of a region together, both padded to powers of two.
    """

    name: str
    function: Callable[..., Tensor]
    device: str | None = None
    dtypes: tuple[torch.dtype, ...] | None = None
    compiled: bool = True
    transformed: bool = True
    kernels: bool = False
    max_centers: int | None = None
    max_dim: int | None = None
    max_held: int | None = None

    def misfit(self, call: Call, *, by_name: bool = False) -> str:
        """Return why a call is not for this row, in words that follow its name, or ''."""
        compiler = call.traced_by.startswith('a compiler')
        if call.traced_by and not (self.compiled if compiler else self.transformed):
            return f'is not made for {call.traced_by}'
        if self.kernels and not _TRITON:
            return 'needs Triton, which is not installed (pip install triton)'
        interpreted = by_name and _TRITON and self.name == 'triton' and _triton_interpreted()
        if self.device and self.device != call.device and not interpreted:
            return f'needs a {self.device.upper()} device, not {call.device}'
        if self.dtypes and call.dtype not in self.dtypes:
            return f'takes {", ".join(map(_word, self.dtypes))}, not {_word(call.dtype)}'
        if self.max_centers and call.centers > self.max_centers:
            return f'takes at most {self.max_centers} centers in a region, not {call.centers}'
        if self.max_dim and call.dim > self.max_dim:
            return f'takes heads of at most {self.max_dim} channels, not {call.dim}'
        if self.max_held and plan.held(call.centers, call.dim) > self.max_held:
            return f'takes at most {self.max_held} channels of all centers of a region, not {call.centers} x {call.dim}'
        return ''


_GPU_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
_PIECES: dict[str, Any] = dict(device='cuda', dtypes=_GPU_DTYPES, compiled=False, transformed=False)
_MOST = dict(max_centers=plan.MAX_CENTERS, max_dim=plan.MAX_DIM, max_held=plan.MAX_HELD)
_KERNELS: dict[str, Any] = {**_PIECES, 'kernels': True}
_CLUSTERING: dict[str, Any] = {**_KERNELS, 'compiled': True, **_MOST}
_CPU: dict[str, Any] = dict(device='cpu', compiled=False, transformed=False)

TABLE: dict[str, tuple[Row, ...]] = {
    'mixer': (
        Row('triton', triton.mix, **_CLUSTERING),
        Row('cpu', cpu_mixer.mix, **_CPU),
        Row('plain', plain.forward),
    ),
    'cluster': (
        Row('triton', triton.cluster, **_CLUSTERING),
        Row('cpu', slabs.cluster, **_CPU),
        Row('plain', plain.cluster),
    ),
    'mlp': (
        Row('triton', mlp.kernel_mlp, **{**_KERNELS, 'dtypes': HALF}, max_dim=plan.MLP_CHANNELS),
        Row('triton', mlp.mlp, **_PIECES),
        Row('cpu', mlp.mlp, **_CPU),
        Row('plain', plain.forward),
    ),
    'norm': (
        Row('triton', norm.map_norm, **_KERNELS),
        Row('cpu', norm.group_norm, **_CPU),
        Row('plain', plain.forward),
    ),
}
"""For each operation its implementations, the preferred first.

``'mixer'`` is the clustering layer with its projections, called with (layer, map, scale), ``'mlp'`` and ``'norm'``
likewise; ``'cluster'`` is the operator alone, called as `coc_core.ops.cluster` without ``impl``. A name stands for its
first row that takes a call. MLP and norm without a row of the name that is asked for run plain.
"""


def register(row: Row) -> None:
    """Add an implementation of the operator, which runs where it is asked for by name, in a layer between projections.

    Args:
        row: Its function is called as `coc_core.ops.cluster` without ``impl``.

    Raises:
        UserError: There is one of that name.
    """
    if row.name in implementations():
        raise UserError(f'There is an implementation {row.name!r}: choose another name.')
    TABLE['cluster'] += (row,)
    TABLE['mixer'] += (replace(row, function=partial(plain.around, row.function)),)


def implementations() -> tuple[str, ...]:
    """Return the names of all implementations of the operator."""
    return tuple(row.name for row in TABLE['cluster'])


register(Row('reference', reference.cluster))


class Choice(NamedTuple):
    """What runs, and why in words."""

    row: Row
    why: str


def check_impl(impl: str) -> None:
    """Raise ValueError unless ``impl`` is ``'auto'`` or the name of an implementation."""
    if impl != 'auto' and impl not in implementations():
        raise UserError(f'impl={impl!r} is unknown: choose one of auto, {", ".join(implementations())}.')


def check_serves(impl: str, changed: str) -> None:
    """Raise ValueError unless ``impl`` is known and serves a layer of which ``changed`` is not the stock one's."""
    check_impl(impl)
    if changed and impl not in ('auto', 'plain'):
        raise UserError(f'impl={impl!r} does not know that {changed}: {_INSTEAD}.')


def select(operation: str, impl: str, call: Call) -> Row:
    """Return the first row for a call.

    Raises:
        UserError: The row of the name ``impl`` does not take it.
    """
    if impl == 'auto':
        return next(row for row in TABLE[operation] if not row.misfit(call))
    rows = [row for row in TABLE[operation] if row.name == impl] or [plain_row(operation)]
    row = next((row for row in rows if not row.misfit(call, by_name=True)), rows[-1])
    misfit = row.misfit(call, by_name=True)
    if misfit and call.traced_by and operation in ('mlp', 'norm'):
        # They are PyTorch in pieces, for which compilers have an answer of their own.
        return plain_row(operation)
    if misfit:
        raise UserError(f'impl={impl!r} {misfit}: {_INSTEAD}.')
    return row


def serve(operation: str, impl: str, call: Call, device: torch.device, kind: Callable[[], Any]) -> tuple[Row, str]:
    """Return the row that serves a call, and why it is PyTorch where Triton's kernels do not run on the device.

    Args:
        operation: A key of `TABLE`.
        impl: As in `select`; what is asked for by name is not tried before.
        call: What decides.
        device: Of the input.
        kind: Gives what kernels would be launched, see ``trial.kind_of_layer``.

    Raises:
        UserError: As in `select`.
    """
    row = select(operation, impl, call)
    if impl != 'auto' or not row.kernels:
        return row, ''
    shared_bytes = plan.shared_bytes(call.centers, call.dim, call.dim, call.dtype.itemsize) if call.centers else 0
    refusal = trial.refusal(device, call.dtype, shared_bytes, None if call.traced_by else kind())
    if not refusal:
        return row, ''
    rest = (r for r in TABLE[operation] if r.name == row.name and not r.kernels and not r.misfit(call))
    return next(rest, plain_row(operation)), refusal


def plain_row(operation: str) -> Row:
    """Return the row of plain PyTorch, which takes every call."""
    return next(row for row in TABLE[operation] if row.name == 'plain')


def is_served(layer: Any) -> bool:
    """Tell whether a layer has what `choose` asks for."""
    return all(hasattr(layer, name) for name in ('operation', 'impl', 'sizes', 'own_parts', 'forward_plain'))


def choose(layer: Any, x: Tensor) -> Choice:
    """Return what a layer runs for an input.

    A layer has ``operation``, ``impl``, ``sizes`` (centers, channels of a head) and ``own_parts`` (what its fused code
    would not know, in words, or '').

    Raises:
        UserError: The implementation that was asked for does not take the input.
    """
    if layer.impl == 'plain':
        return Choice(plain_row(layer.operation), "impl='plain' was asked for")
    changed = layer.own_parts()
    if changed:
        check_serves(layer.impl, changed)
        return Choice(plain_row(layer.operation), changed)
    traced = traced_by(x)
    if isinstance(x, Tensor):
        call = Call(x.device.type, autocast_dtype(x), traced, *layer.sizes)
    else:
        # While torch.fx traces, the input has neither device nor type.
        call = Call('', torch.float32, traced, *layer.sizes)
        return Choice(select(layer.operation, layer.impl, call), f'for {traced}')
    kind = partial(trial.kind_of_layer, layer, x, call.dtype)
    row, refusal = serve(layer.operation, layer.impl, call, x.device, kind)
    return Choice(row, refusal or (f'for {traced}' if traced else f'{_word(call.dtype)} on {call.device}'))


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _triton_interpreted() -> bool:
    import triton

    return bool(triton.knobs.runtime.interpret)


def _word(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix('torch.')
