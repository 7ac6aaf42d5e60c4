"""Whether the kernels run on a GPU, found out before anything rests on them.

Static facts first; then each kind of kernel, of a device, a precision and a shape, is launched once, forward and
backward, on a small map of zeros. What Triton cannot compile, or the device cannot hold, is served by plain PyTorch;
an error that leaves the device unusable is raised.
"""

from __future__ import annotations

import itertools
import subprocess
import warnings
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from coc_core import compilers
from coc_core.ops.regions import as_pair
from coc_core.ops.triton import launch, launch_norm
from coc_core.ops.triton.launch import Problem

LEAST_CAPABILITY = (8, 0)
# Rows and columns of a region that one program handles whatever its centers, and of one that none does.
WHOLE, CHUNKED = 4, 32
_refusals = itertools.count()


class Norm(NamedTuple):
    """What decides which kernels of the norm are launched."""

    channels: int

    @property
    def words(self) -> str:
        """What it is, after a precision."""
        return f'norms of {self.channels} channels'


def refusal(device: torch.device, dtype: torch.dtype, shared_bytes: int, problem: Problem | Norm | None) -> str:
    """Return why the kernels do not run, in a sentence, or ''. The first reason that is met is a warning.

    Args:
        device: A GPU.
        dtype: Of the maps.
        shared_bytes: Shared memory that they need, see `plan.shared_bytes`.
        problem: Of a call; None where nothing can be launched, as in a graph that is made.

    Raises:
        RuntimeError: The launch has left the device unusable, as an illegal memory access does.
    """
    lacking: str = lacks(device.index, shared_bytes)
    if lacking or problem is None or _capturing(device):
        return lacking
    return _tried(device, dtype, kind_of(problem, dtype))


def problem_of_layer(layer: Any, x_BHWC: Tensor) -> Problem | Norm | None:
    """Return what a clustering layer or a norm launches; None of no map, or of one that regions do not divide."""
    if layer.operation == 'norm':
        return Norm(layer.num_channels) if x_BHWC.ndim == 4 else None
    regions, centers = as_pair(layer.region_grid, 'region_grid'), as_pair(layer.center_grid, 'center_grid')
    if x_BHWC.ndim != 4 or x_BHWC.shape[1] % regions[0] or x_BHWC.shape[2] % regions[1]:
        return None
    size = x_BHWC.shape[1] // regions[0], x_BHWC.shape[2] // regions[1]
    dims = layer.head_dim, layer.head_dim
    by_count = layer.denominator == 'count'
    return Problem(len(x_BHWC), layer.heads, *regions, *size, *centers, *dims, x_BHWC.dtype.itemsize, by_count)


def kind_of(problem: Problem | Norm, dtype: torch.dtype) -> Problem | Norm:
    """Return a small problem that the same kernels are compiled for: they know neither regions nor their sizes."""
    if isinstance(problem, Norm):
        return problem
    p = problem._replace(batch=1, region_rows=1, region_cols=1, itemsize=dtype.itemsize)
    size = WHOLE if p.is_whole else CHUNKED
    return p._replace(height=size, width=size)


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
def _tried(device: torch.device, dtype: torch.dtype, problem: Problem | Norm) -> str:
    from triton.errors import TritonError

    try:
        _launch(device, dtype, problem)
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
        return _told(f'The kernels do not run here for {dtype}, {problem.words} ({reason}).')
    return ''


@torch.no_grad()
def _launch(device: torch.device, dtype: torch.dtype, problem: Problem | Norm) -> None:
    """Launch all kernels of a problem, without autograd, which would tell those who watch what a forward saves."""
    if isinstance(problem, Norm):
        _launch_norm(device, dtype, problem.channels)
    else:
        _launch_clustering(device, dtype, problem)


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


def is_dead(device: torch.device) -> bool:
    """Tell whether a device refuses all further calls of this process, as after an illegal memory access."""
    if device.type != 'cuda':
        return False
    try:
        torch.cuda.synchronize(device)
    except RuntimeError:
        return True
    return False


def _capturing(device: torch.device) -> bool:
    return device.type == 'cuda' and torch.cuda.is_current_stream_capturing()


def _told(sentence: str) -> str:
    """Warn of the first refusal of the process; those of other shapes have the same cause."""
    if sentence and next(_refusals) == 0:
        remedy = 'Plain PyTorch runs instead; `python tools/doctor.py` looks for what mends it.'
        warnings.warn(f'{sentence} {remedy}', stacklevel=2)
    return sentence
