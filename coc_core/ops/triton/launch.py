"""Allocates what the clustering kernels write and launches them; both registered operators come through here."""

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
    itemsize: int
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

    @property
    def words(self) -> str:
        """What it is, after a precision."""
        return f'{self.centers} centers and heads of {self.dim} channels'

    @property
    def is_whole(self) -> bool:
        """Whether one program handles a region."""
        return plan.is_whole(self.points, self.centers)


class State(NamedTuple):
    """What the forward keeps for the backward; the last four are empty where one program handles a region."""

    center: Tensor  # uint8 [G, N]
    similarity: Tensor  # float32 [G, N], as all that follow
    unit: Tensor  # [G, M, D]
    inverse_length: Tensor  # [G, M]
    held: Tensor  # [G, M, D']
    weight: Tensor  # [G, M]


def problem_of(points_BHWKD: Tensor, values_BHWKD: Tensor, centers: Pair, regions: Pair, count: bool) -> Problem:
    """Read the sizes of a call off its tensors; the caller has checked them."""
    batch, height, width, heads, dim = points_BHWKD.shape
    size = height // regions[0], width // regions[1]
    return Problem(
        batch, heads, *regions, *size, *centers, dim, values_BHWKD.shape[-1], values_BHWKD.dtype.itemsize, count
    )


def allocate(problem: Problem, values_BHWKD: Tensor) -> tuple[Tensor, State]:
    """Return what the forward writes; also run on fake tensors."""
    p = problem
    mixed = values_BHWKD.new_empty(values_BHWKD.shape)
    center = values_BHWKD.new_empty((p.groups, p.points), dtype=torch.uint8)
    similarity = values_BHWKD.new_empty((p.groups, p.points), dtype=torch.float32)
    per_center = p.groups, p.centers
    shapes = (*per_center, p.dim), per_center, (*per_center, p.values_dim), per_center
    kept = (values_BHWKD.new_empty((0,) if p.is_whole else shape, dtype=torch.float32) for shape in shapes)
    return mixed, State(center, similarity, *kept)


def kernels() -> Any:
    """Return the modules with the kernels, of whole regions and of chunks."""
    from coc_core.ops.triton import chunks, whole

    return whole, chunks


def run(kernel: Any, programs: int, *arguments: Any, warps: int, **sizes: Any) -> None:
    """Launch a kernel."""
    kernel[(programs,)](*arguments, **sizes, num_warps=warps, num_stages=1)


def forward(inputs: Inputs, problem: Problem) -> tuple[Tensor, State]:
    """Return the mixed map, and what the backward needs."""
    p, (points, values, alpha, beta) = problem, inputs
    mixed, state = allocate(p, values)
    if mixed.numel() == 0:
        return mixed, state
    points, values = _readable(points, p), _readable(values, p)
    _check_reach(mixed, p)
    with on_device(points):
        launch = _forward_whole if p.is_whole else _forward_chunks
        launch((points, values, alpha, beta), mixed, state, p)
    return mixed, state


def _forward_whole(inputs: Inputs, mixed: Tensor, state: State, p: Problem) -> None:
    points, values, alpha, beta = inputs
    whole, _ = kernels()
    arguments = points, values, alpha, beta, mixed, state.center, state.similarity
    pitches = _pitch(points), _pitch(values), _pitch(mixed)
    sizes = _sizes(p, 'ROWS COLS D DV COUNT BLOCK_N BLOCK_M BLOCK_D BLOCK_DV')
    run(whole.forward_whole, p.groups, *arguments, *pitches, *p.geometry, **sizes)


def _forward_chunks(inputs: Inputs, mixed: Tensor, state: State, p: Problem) -> None:
    points, values, alpha, beta = inputs
    _, kernel = kernels()
    programs, where, number = _chunks(points, p)
    rows = p.groups * p.centers
    partial_points = _partial(points, number, p, p.dim)
    sizes = _sizes(p, 'ROWS COLS D BLOCK_N BLOCK_M BLOCK_D')
    run(kernel.pool_chunk, programs, points, partial_points, _pitch(points), *where, **sizes)
    _finish(kernel.finish_unit, rows, partial_points, state.unit, state.inverse_length, rows, number, dim=p.dim)

    partial_values, partial_weight = _partial(points, number, p, p.values_dim), _partial(points, number, p, 1)
    arguments = points, values, alpha, beta, state.unit, state.center, state.similarity, partial_values, partial_weight
    sizes = _sizes(p, 'ROWS COLS D DV COUNT BLOCK_N BLOCK_M BLOCK_D BLOCK_DV')
    run(kernel.assign_chunk, programs, *arguments, _pitch(points), _pitch(values), *where, **sizes)
    sums = partial_values, partial_weight
    _finish(kernel.finish_held, rows, *sums, state.held, state.weight, rows, number, dim=p.values_dim)

    dispatched = state.held, state.center, state.similarity, mixed, _pitch(mixed)
    run(kernel.dispatch_chunk, programs, *dispatched, *where, **_sizes(p, 'M DV BLOCK_N BLOCK_DV'))


def backward(
    grad: Tensor, inputs: Inputs, state: State, grads: tuple[Tensor, Tensor], problem: Problem
) -> tuple[Tensor, Tensor]:
    """Write the gradients of points and values, equally spaced maps; return those of alpha and beta."""
    p, (points, values, alpha, beta) = problem, inputs
    if grad.numel() == 0:
        grads[0].zero_()
        return torch.zeros_like(alpha), torch.zeros_like(beta)
    grad, points, values = (_readable(x, p) for x in (grad, points, values))
    for written in grads:
        _check_reach(written, p)
    with on_device(points):
        launch = _backward_whole if p.is_whole else _backward_chunks
        scalars = launch(grad, (points, values, alpha, beta), state, grads, p)
    grad_alpha, grad_beta = scalars.sum(dim=1).unbind()
    return grad_alpha.reshape(alpha.shape).to(alpha.dtype), grad_beta.reshape(beta.shape).to(beta.dtype, copy=True)


def _backward_whole(grad: Tensor, inputs: Inputs, state: State, grads: tuple[Tensor, Tensor], p: Problem) -> Tensor:
    (points, values, alpha, _), (grad_points, grad_values) = inputs, grads
    whole, _ = kernels()
    grad_z, scalars = torch.empty_like(state.similarity), points.new_empty((2, p.groups), dtype=torch.float32)
    arguments: tuple[Any, ...] = grad, values, state.center, state.similarity, grad_values, grad_z
    pitches: tuple[Any, ...] = _pitch(grad), _pitch(values), _pitch(grad_values)
    sizes = _sizes(p, 'ROWS COLS DV COUNT BLOCK_N BLOCK_M BLOCK_DV')
    run(whole.values_backward_whole, p.groups, *arguments, *pitches, *p.geometry, **sizes)

    arguments = points, alpha, state.center, grad_z, grad_points, scalars
    pitches = _pitch(points), _pitch(grad_points), p.groups
    sizes = _sizes(p, 'ROWS COLS D FEW_N BLOCK_M BLOCK_D')
    run(whole.points_backward_whole, p.groups, *arguments, *pitches, *p.geometry, **sizes)
    return scalars


def _backward_chunks(grad: Tensor, inputs: Inputs, state: State, grads: tuple[Tensor, Tensor], p: Problem) -> Tensor:
    (points, values, alpha, _), (grad_points, grad_values) = inputs, grads
    _, kernel = kernels()
    programs, where, number = _chunks(points, p)
    rows = p.groups * p.centers
    partial_sum, grad_sum = _partial(points, number, p, p.values_dim), torch.empty_like(state.held)
    arguments: tuple[Any, ...] = grad, state.center, state.similarity, partial_sum, _pitch(grad)
    run(kernel.grad_sum_chunk, programs, *arguments, *where, **_sizes(p, 'M DV BLOCK_N BLOCK_M BLOCK_DV'))
    _finish(kernel.finish_grad_sum, rows, partial_sum, state.weight, grad_sum, rows, number, dim=p.values_dim)

    grad_z, scalars = torch.empty_like(state.similarity), points.new_empty((2, programs), dtype=torch.float32)
    arguments = grad, values, state.center, state.similarity, state.held, grad_sum, grad_values, grad_z
    arguments += _pitch(grad), _pitch(values), _pitch(grad_values)
    sizes = _sizes(p, 'ROWS COLS DV COUNT BLOCK_N BLOCK_M BLOCK_DV')
    run(kernel.values_backward_chunk, programs, *arguments, *where, **sizes)

    partial_unit, grad_centers = _partial(points, number, p, p.dim), torch.empty_like(state.unit)
    arguments = points, alpha, state.center, grad_z, partial_unit, _pitch(points)
    run(kernel.unit_sum_chunk, programs, *arguments, *where, **_sizes(p, 'M D BLOCK_N BLOCK_M BLOCK_D'))
    centers = state.unit, state.inverse_length, grad_centers
    _finish(kernel.finish_grad_centers, rows, partial_unit, *centers, rows, number, dim=p.dim)

    arguments = points, alpha, state.center, grad_z, state.unit, grad_centers, grad_points, scalars
    arguments += _pitch(points), _pitch(grad_points), programs
    run(kernel.points_backward_chunk, programs, *arguments, *where, **_sizes(p, 'ROWS COLS D FEW_N BLOCK_M BLOCK_D'))
    return scalars


def _chunks(points: Tensor, p: Problem) -> tuple[int, tuple[int, ...], int]:
    """Return how many programs work on chunks, what tells them where, and how many chunks a region has."""
    blocks = plan.blocks_of(p.centers, p.dim, p.values_dim, p.itemsize)
    chunks = plan.split(p.points, p.groups, blocks.points, processors(points))
    return p.groups * chunks.number, (p.groups, chunks.size, *p.geometry), chunks.number


def _finish(kernel: Any, rows: int, *arguments: Any, dim: int) -> None:
    """Launch a kernel that joins the chunks, a program per center."""
    run(kernel, rows, *arguments, warps=1, D=dim, BLOCK_D=plan.padded(dim))


def _sizes(p: Problem, names: str) -> dict[str, int]:
    """Return what a kernel is compiled for: the constants that it names, its warps, and a limit of registers."""
    blocks = plan.blocks_of(p.centers, p.dim, p.values_dim, p.itemsize)
    sizes = dict(ROWS=p.center_rows, COLS=p.center_cols, M=p.centers, D=p.dim, DV=p.values_dim, COUNT=p.by_count)
    sizes |= dict(
        BLOCK_N=blocks.points,
        FEW_N=blocks.few_points,
        BLOCK_M=blocks.centers,
        BLOCK_D=blocks.dim,
        BLOCK_DV=blocks.values_dim,
    )
    options = dict(warps=blocks.warps) | (dict(maxnreg=blocks.registers) if blocks.registers else {})
    return {name: sizes[name] for name in names.split()} | options


def _partial(like: Tensor, chunks: int, p: Problem, dim: int) -> Tensor:
    return like.new_empty((chunks, p.groups, p.centers, dim), dtype=torch.float32)


def _pitch(x_BHWKD: Tensor) -> int:
    """Return how many elements the positions of an equally spaced map lie apart."""
    return next((x_BHWKD.stride(i) for i in (2, 1, 0) if x_BHWKD.shape[i] > 1), x_BHWKD.shape[3:].numel())


def _readable(x_BHWKD: Tensor, p: Problem) -> Tensor:
    """Return a map itself where its positions are equally spaced and its heads adjacent; else a dense copy."""
    _, height, width, heads, dim = x_BHWKD.shape
    pitch = _pitch(x_BHWKD)
    strides = height * width * pitch, width * pitch, pitch, dim, 1
    readable = pitch >= heads * dim
    readable &= all(n == 1 or s == want for n, s, want in zip(x_BHWKD.shape, x_BHWKD.stride(), strides, strict=True))
    x_BHWKD = x_BHWKD if readable else x_BHWKD.contiguous()
    _check_reach(x_BHWKD, p)
    return x_BHWKD


def _check_reach(x_BHWKD: Tensor, p: Problem) -> None:
    """Refuse what int32 cannot reach: the points of a region from its first; the region itself is found in int64."""
    span = (p.height - 1) * x_BHWKD.shape[2] + p.width
    if p.points > plan.MAX_POINTS or span * _pitch(x_BHWKD) >= INT32_ELEMENTS:
        raise UserError(
            f'A region of {p.height}x{p.width} points has over a million, or spans over 2^31 elements: choose '
            "impl='plain'."
        )


def processors(x: Tensor) -> int:
    """Return how many multiprocessors a tensor's GPU has."""
    # Two, where the kernels are interpreted: each program takes its time there.
    return torch.cuda.get_device_properties(x.device).multi_processor_count if x.is_cuda else 2


def on_device(x: Tensor) -> contextlib.AbstractContextManager[Any]:
    """Return a context in which kernels are launched where a tensor is."""
    return torch.cuda.device(x.device) if x.is_cuda else contextlib.nullcontext()
