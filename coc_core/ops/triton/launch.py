"""Allocates what the kernels write and launches them; both registered operators come through here."""

from __future__ import annotations

import contextlib
from typing import Any, NamedTuple

import torch
from torch import Tensor

from coc_core.errors import UserError
from coc_core.ops.regions import Pair
from coc_core.ops.triton import plan

INT32_ELEMENTS = 2**31
Inputs = tuple[Tensor, Tensor, Tensor, Tensor]
"""Points, values, alpha and beta."""


class Problem(NamedTuple):
    """The sizes of a call."""

    batch: int
    heads: int
    region_rows: int
    region_cols: int
    height: int
    width: int
    center_rows: int
    center_cols: int
    dim: int
    values_dim: int
    by_count: bool

    @property
    def groups(self) -> int:
        """G."""
        return self.batch * self.region_rows * self.region_cols * self.heads

    @property
    def points(self) -> int:
        """N."""
        return self.height * self.width

    @property
    def centers(self) -> int:
        """M."""
        return self.center_rows * self.center_cols

    @property
    def geometry(self) -> tuple[int, ...]:
        """What a kernel needs to find a group in a map."""
        return self.heads, self.region_rows, self.region_cols, self.height, self.width


class State(NamedTuple):
    """What the forward keeps for the backward; the last five are empty where a region fits on the chip."""

    center: Tensor  # uint8 [G, N]
    similarity: Tensor  # float32 [G, N], as all that follow
    unit: Tensor  # [G, M, D]
    length: Tensor  # [G, M]
    held: Tensor  # [G, M, D']
    weight: Tensor  # [G, M]


def problem_of(points_BHWKD: Tensor, values_BHWKD: Tensor, centers: Pair, regions: Pair, count: bool) -> Problem:
    """Read the sizes of a call off its tensors; the caller has checked them."""
    batch, height, width, heads, dim = points_BHWKD.shape
    size = height // regions[0], width // regions[1]
    return Problem(batch, heads, *regions, *size, *centers, dim, values_BHWKD.shape[-1], count)


def allocate(problem: Problem, values_BHWKD: Tensor) -> tuple[Tensor, State]:
    """Return what the forward writes; also run on fake tensors."""
    p = problem
    mixed = values_BHWKD.new_empty(values_BHWKD.shape)
    center = values_BHWKD.new_empty((p.groups, p.points), dtype=torch.uint8)
    on_chip = plan.fits_on_chip(p.points, p.centers, p.dim, p.values_dim, values_BHWKD.dtype.itemsize)
    per_center = p.groups, p.centers
    shapes: list[tuple[int, ...]] = [(p.groups, p.points), (*per_center, p.dim), per_center]
    shapes += [(*per_center, p.values_dim), per_center]
    kept = [values_BHWKD.new_empty((0,) if on_chip else shape, dtype=torch.float32) for shape in shapes]
    return mixed, State(center, *kept)


def kernels() -> Any:
    """Return the modules with the kernels: the one place that imports Triton."""
    from coc_core.ops.triton import backward, forward

    return forward, backward


def run(kernel: Any, programs: int, *arguments: Any, warps: int, stages: int = 1, **sizes: Any) -> None:
    """Launch a kernel."""
    kernel[(programs,)](*arguments, **sizes, num_warps=warps, num_stages=stages)


def forward(inputs: Inputs, problem: Problem) -> tuple[Tensor, State]:
    """Return the mixed map, and what the backward needs."""
    p, (points, values, alpha, beta) = problem, inputs
    mixed, state = allocate(p, values)
    if mixed.numel() == 0:
        return mixed, state
    points, values = _readable(points, p), _readable(values, p)
    _check_reach(_strides(mixed), p)
    module, _ = kernels()
    with _device(points):
        launch = _forward_chunks if state.held.ndim == 3 else _forward_on_chip
        launch(module, (points, values, alpha, beta), mixed, state, p)
    return mixed, state


def _forward_on_chip(module: Any, inputs: Inputs, mixed: Tensor, state: State, p: Problem) -> None:
    points, values, alpha, beta = inputs
    blocks = plan.on_chip_blocks(p.points, p.centers, p.dim, p.values_dim)
    arguments = points, values, alpha, beta, mixed, state.center
    places = _strides(points), _strides(values), mixed.stride(2), p.geometry[:3]
    sizes = dict(**_all_sizes(p, blocks), HEIGHT=p.height, WIDTH=p.width)
    run(module.forward_on_chip, p.groups, *arguments, *places, warps=blocks.warps, **sizes)


def _forward_chunks(module: Any, inputs: Inputs, mixed: Tensor, state: State, p: Problem) -> None:
    points, values, alpha, beta = inputs
    blocks = plan.chunk_blocks(p.centers, p.dim, p.values_dim)
    chunks = plan.split(p.points, p.groups, blocks.points, _processors(points))
    programs, rows = p.groups * chunks.number, p.groups * p.centers
    partial_points = _partial(points, chunks, p, p.dim)
    where = p.groups, p.geometry, chunks.size
    sizes = _sizes(p, blocks)
    arguments: tuple[Any, ...] = points, partial_points, _strides(points), *where
    run(module.pool_chunk, programs, *arguments, **_pipelined(blocks), **sizes, D=p.dim, BLOCK_D=blocks.dim)
    arguments = partial_points, state.unit, state.length, rows, chunks.number
    run(module.finish_unit, rows, *arguments, warps=1, D=p.dim, BLOCK_D=blocks.dim)

    partial_values, partial_weight = _partial(points, chunks, p, p.values_dim), _partial(points, chunks, p, 1)
    arguments = points, values, alpha, beta, state.unit, state.center, state.similarity, partial_values, partial_weight
    arguments += _strides(points), _strides(values), *where
    run(module.assign_chunk, programs, *arguments, **_pipelined(blocks), **_all_sizes(p, blocks))
    arguments = partial_values, partial_weight, state.held, state.weight, rows, chunks.number
    run(module.finish_held, rows, *arguments, warps=1, D=p.values_dim, BLOCK_D=blocks.values_dim)

    arguments = state.held, state.center, state.similarity, mixed, mixed.stride(2), p.groups, p.geometry
    values_sizes = dict(M=p.centers, DV=p.values_dim, BLOCK_N=blocks.points, BLOCK_DV=blocks.values_dim)
    programs = p.groups * -(-p.points // blocks.points)
    run(module.dispatch_block, programs, *arguments, warps=4, **values_sizes)


def backward(
    grad: Tensor, inputs: Inputs, state: State, grads: tuple[Tensor, Tensor], problem: Problem
) -> tuple[Tensor, Tensor]:
    """Write the gradients of points and values, maps whose heads are dense; return those of alpha and beta."""
    p, (points, values, alpha, beta) = problem, inputs
    if grad.numel() == 0:
        grads[0].zero_()
        return torch.zeros_like(alpha), torch.zeros_like(beta)
    grad, points, values = (_readable(x, p) for x in (grad, points, values))
    for written in grads:
        _check_reach(_strides(written), p)
    _, module = kernels()
    with _device(points):
        launch = _backward_chunks if state.held.ndim == 3 else _backward_on_chip
        scalars = launch(module, grad, (points, values, alpha, beta), state, grads, p)
    grad_alpha, grad_beta = scalars.sum(dim=1).unbind()
    return grad_alpha.reshape(alpha.shape).to(alpha.dtype), grad_beta.reshape(beta.shape).to(beta.dtype, copy=True)


def _backward_on_chip(
    module: Any, grad: Tensor, inputs: Inputs, state: State, grads: tuple[Tensor, Tensor], p: Problem
) -> Tensor:
    (points, values, alpha, beta), (grad_points, grad_values) = inputs, grads
    blocks = plan.on_chip_blocks(p.points, p.centers, p.dim, p.values_dim)
    scalars = points.new_empty((2, p.groups), dtype=torch.float32)
    arguments = grad, points, values, alpha, beta, state.center, grad_points, grad_values, scalars
    places = _strides(grad), _strides(points), _strides(values), grad_points.stride(2), grad_values.stride(2)
    where = p.groups, p.geometry[:3]
    sizes = dict(**_all_sizes(p, blocks), HEIGHT=p.height, WIDTH=p.width)
    run(module.backward_on_chip, p.groups, *arguments, *places, *where, warps=blocks.warps, **sizes)
    return scalars


def _backward_chunks(
    module: Any, grad: Tensor, inputs: Inputs, state: State, grads: tuple[Tensor, Tensor], p: Problem
) -> Tensor:
    (points, values, alpha, _), (grad_points, grad_values) = inputs, grads
    blocks = plan.chunk_blocks(p.centers, p.dim, p.values_dim)
    chunks = plan.split(p.points, p.groups, blocks.points, _processors(points))
    programs, rows = p.groups * chunks.number, p.groups * p.centers
    partial_sum, grad_sum = _partial(points, chunks, p, p.values_dim), torch.empty_like(state.held)
    arguments: tuple[Any, ...] = grad, state.center, state.similarity, partial_sum, _strides(grad)
    arguments += p.groups, p.geometry, chunks.size
    value_sizes = dict(M=p.centers, DV=p.values_dim, BLOCK_M=blocks.centers, BLOCK_DV=blocks.values_dim)
    run(module.grad_sum_chunk, programs, *arguments, **_pipelined(blocks), **value_sizes, BLOCK_N=blocks.points)
    arguments = partial_sum, state.weight, grad_sum, rows, chunks.number
    run(module.finish_grad_sum, rows, *arguments, warps=1, D=p.values_dim, BLOCK_D=blocks.values_dim)

    scaled, scalars = torch.empty_like(state.similarity), points.new_empty((2, programs), dtype=torch.float32)
    partial_unit, grad_centers = _partial(points, chunks, p, p.dim), torch.empty_like(state.unit)
    arguments = grad, points, values, alpha, state.center, state.similarity, state.unit, state.held, grad_sum
    arguments += grad_values, scaled, partial_unit, scalars, _strides(grad), _strides(points), _strides(values)
    arguments += grad_values.stride(2), p.groups, programs, p.geometry, chunks.size
    run(module.grad_values_chunk, programs, *arguments, **_pipelined(blocks), **_all_sizes(p, blocks))
    arguments = partial_unit, state.unit, state.length, grad_centers, rows, chunks.number
    run(module.finish_grad_centers, rows, *arguments, warps=1, D=p.dim, BLOCK_D=blocks.dim)

    arguments = points, state.center, scaled, state.unit, grad_centers, grad_points
    arguments += _strides(points), grad_points.stride(2), p.groups, p.geometry
    programs = p.groups * -(-p.points // blocks.points)
    sizes = _sizes(p, blocks)
    run(module.grad_points_block, programs, *arguments, warps=blocks.warps, **sizes, D=p.dim, BLOCK_D=blocks.dim)
    return scalars


def _pipelined(blocks: plan.Blocks) -> dict[str, int]:
    return dict(warps=blocks.warps, stages=blocks.stages)


def _sizes(p: Problem, blocks: plan.Blocks) -> dict[str, int]:
    return dict(ROWS=p.center_rows, COLS=p.center_cols, BLOCK_N=blocks.points, BLOCK_M=blocks.centers)


def _all_sizes(p: Problem, blocks: plan.Blocks) -> dict[str, int]:
    dims = dict(D=p.dim, DV=p.values_dim, BLOCK_D=blocks.dim, BLOCK_DV=blocks.values_dim)
    return dict(**_sizes(p, blocks), **dims, COUNT=p.by_count)


def _partial(like: Tensor, chunks: plan.Chunks, p: Problem, dim: int) -> Tensor:
    return like.new_empty((chunks.number, p.groups, p.centers, dim), dtype=torch.float32)


def _strides(x_BHWKD: Tensor) -> tuple[int, ...]:
    return x_BHWKD.stride()[:4]


def _readable(x_BHWKD: Tensor, p: Problem) -> Tensor:
    """Return the map itself where its channels are adjacent; else a dense copy."""
    if x_BHWKD.stride(4) != 1 and x_BHWKD.shape[4] > 1:
        x_BHWKD = x_BHWKD.contiguous()
    _check_reach(_strides(x_BHWKD), p)
    return x_BHWKD


def _check_reach(strides: tuple[int, ...], p: Problem) -> None:
    """Return the offsets of a region's points from its first are int32; that of the region itself is int64."""
    if p.height * strides[1] + p.width * strides[2] >= INT32_ELEMENTS:
        raise UserError(f"A region of {p.height}x{p.width} points spans over 2^31 elements: choose impl='plain'.")


def _processors(x: Tensor) -> int:
    # Two, where the kernels are interpreted: each program takes its time there.
    return torch.cuda.get_device_properties(x.device).multi_processor_count if x.is_cuda else 2


def _device(x: Tensor) -> contextlib.AbstractContextManager[Any]:
    return torch.cuda.device(x.device) if x.is_cuda else contextlib.nullcontext()
