"""Whether the kernels run on a GPU, found out before anything rests on them.

Static facts first; then each kind of kernel, of a device, a precision and a shape, is launched once, forward and
backward, on a small map of zeros. What Triton cannot compile, or the device cannot hold, is served by plain PyTorch;
an error that leaves the device unusable is raised.
"""

from __future__ import annotations

import itertools
import subprocess
import warnings
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from coc_core import compilers
from coc_core.ops.context import is_dead
from coc_core.ops.regions import as_pair
from coc_core.ops.triton import launch, launch_mlp, launch_norm
from coc_core.ops.triton.launch import Problem

LEAST_CAPABILITY = (8, 0)
# Rows and columns of a region that one program handles whatever its centers, and of one that none does.
WHOLE, CHUNKED = 4, 32
_refusals = itertools.count()


class Kind(NamedTuple):
    """Kernels that are compiled for the same sizes.

    Attributes:
        launch: Called with a device, a precision and ``sizes``; launches them all on a small map.
        sizes: What they are compiled for.
        words: What it is, after a precision.
    """

    launch: Callable[..., None]
    sizes: tuple[Any, ...]
    words: str


def refusal(device: torch.device, dtype: torch.dtype, shared_bytes: int, kind: Kind | None) -> str:
    """Return why the kernels do not run, in a sentence, or ''. The first reason that is met is a warning.

    Args:
        device: A GPU.
        dtype: Of the maps.
        shared_bytes: Shared memory that they need, see `plan.shared_bytes`.
        kind: What a call launches; None where nothing can be launched, as in a graph that is made.

    Raises:
        RuntimeError: The launch has left the device unusable, as an illegal memory access does.
    """
    lacking: str = lacks(device.index, shared_bytes)
    if lacking or kind is None or _capturing(device):
        return lacking
    return _tried(device, dtype, kind)


def kind_of_layer(layer: Any, x_BHWC: Tensor, dtype: torch.dtype) -> Kind | None:
    """Return what a layer launches in a precision; None of no map, or of one that regions do not divide."""
    if layer.operation == 'norm':
        channels = layer.num_channels
        return Kind(_launch_norm, (channels,), f'norms of {channels} channels') if x_BHWC.ndim == 4 else None
    if layer.operation == 'mlp':
        sizes = layer.fc1.in_features, layer.fc1.out_features, layer.fc2.out_features
        return Kind(_launch_mlp, sizes, 'MLPs of {}, {} and {} channels'.format(*sizes))
    regions, centers = as_pair(layer.region_grid, 'region_grid'), as_pair(layer.center_grid, 'center_grid')
    if x_BHWC.ndim != 4 or x_BHWC.shape[1] % regions[0] or x_BHWC.shape[2] % regions[1]:
        return None
    size = x_BHWC.shape[1] // regions[0], x_BHWC.shape[2] // regions[1]
    dims = layer.head_dim, layer.head_dim
    by_count = layer.denominator == 'count'
    problem = Problem(len(x_BHWC), layer.heads, *regions, *size, *centers, *dims, dtype.itemsize, by_count)
    return kind_of(problem, dtype)


def kind_of(problem: Problem, dtype: torch.dtype) -> Kind:
    """Return the kernels of the clustering, which know neither regions nor their sizes, for a small problem."""
    p = problem._replace(batch=1, region_rows=1, region_cols=1, itemsize=dtype.itemsize)
    size = WHOLE if p.is_whole else CHUNKED
    return Kind(_launch_clustering, (p._replace(height=size, width=size),), p.words)


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def lacks(index: int | None, shared_bytes: int = 0) -> str:
    """Return what a GPU, or the machine around it, lacks for the kernels, in a sentence, or ''."""
    return _lacks(index, shared_bytes)


@cache
def _lacks(index: int | None, shared_bytes: int) -> str:
    if torch.version.hip is not None:
        sentence = 'The kernels are made for CUDA, not for ROCm.'
    elif torch.cuda.get_device_capability(index) < LEAST_CAPABILITY:
        capability, least = (f'{a}.{b}' for a, b in (torch.cuda.get_device_capability(index), LEAST_CAPABILITY))
        sentence = f'The kernels need a GPU of capability {least}, and this one has {capability}.'
    elif shared_bytes and _shared_memory(index) < shared_bytes:
        sentence = f'The kernels need up to {shared_bytes:,} bytes of shared memory here, more than this GPU has.'
    else:
        sentence = compilers.missing_for_triton()
    return _told(sentence)


def _shared_memory(index: int | None) -> int:
    """Return what a program may have at most; PyTorch has no type for it."""
    most: int = torch.cuda.get_device_properties(index).shared_memory_per_block_optin  # type: ignore[attr-defined]
    return most


@cache
def _tried(device: torch.device, dtype: torch.dtype, kind: Kind) -> str:
    from triton.errors import TritonError

    try:
        # Autograd would tell those who watch what a forward saves.
        with torch.no_grad():
            kind.launch(device, dtype, *kind.sizes)
        if device.type == 'cuda':
            # An error of a kernel is told here, or else by some later call.
            torch.cuda.synchronize(device)
    except torch.OutOfMemoryError:
        # Of the moment, not of the kernels.
        return ''
    except (TritonError, subprocess.CalledProcessError, OSError, ImportError, RuntimeError) as error:
        if is_dead(device):
            raise
        reason = ' '.join(f'{type(error).__name__}: {error}'.split())[:300]
        return _told(f'The kernels do not run here for {dtype}, {kind.words} ({reason}).')
    return ''


def _launch_clustering(device: torch.device, dtype: torch.dtype, p: Problem) -> None:
    height, width = p.region_rows * p.height, p.region_cols * p.width
    points = torch.zeros(1, height, width, p.heads, p.dim, dtype=dtype, device=device)
    values = points.new_zeros(1, height, width, p.heads, p.values_dim)
    one = torch.ones(1, dtype=torch.float32, device=device)
    inputs = points, values, one, one
    mixed, state = launch.forward(inputs, p)
    launch.backward(mixed, inputs, state, (torch.empty_like(points), torch.empty_like(values)), p)


def _launch_norm(device: torch.device, dtype: torch.dtype, channels: int) -> None:
    # Maps of the precision of matrix products, and of what autocast leaves alone.
    x = torch.zeros(1, 4, 4, channels, dtype=dtype, device=device)
    weight = torch.ones(channels, dtype=torch.float32, device=device)
    for map_ in (x, x.float()):
        out, statistics = launch_norm.forward(map_, weight, weight, 1e-5, dtype)
        launch_norm.backward(out, map_, weight, statistics)


def _launch_mlp(device: torch.device, dtype: torch.dtype, channels: int, hidden: int, width: int) -> None:
    shapes = (4, channels), (hidden, channels), (hidden,), (width, hidden), (width,)
    launch_mlp.forward(*(torch.zeros(shape, dtype=dtype, device=device) for shape in shapes))


def _capturing(device: torch.device) -> bool:
    return device.type == 'cuda' and torch.cuda.is_current_stream_capturing()


def _told(sentence: str) -> str:
    """Warn of the first refusal of the process; those of other shapes have the same cause."""
    if sentence and next(_refusals) == 0:
        remedy = 'Plain PyTorch runs instead; `python tools/doctor.py` looks for what mends it.'
        warnings.warn(f'{sentence} {remedy}', stacklevel=2)
    return sentence
