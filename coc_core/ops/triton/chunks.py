"""Kernels of larger regions, cut into chunks of points: a program per chunk, or per center where chunks are joined.

Partial sums are written and added up in a fixed order; nothing is added atomically.
"""

import triton
import triton.language as tl

from coc_core.ops.triton.maps import (
    gather_centers,
    load_centers,
    load_points,
    locate,
    members,
    store_partial,
    store_points,
    sum_chunks,
    take_block,
    window_shares,
)
from coc_core.ops.triton.products import count_dot
from coc_core.ops.triton.steps import (
    assign,
    held_sum,
    inverse_lengths,
    own_sum,
    points_gradient,
    unit_gradient,
    unit_sum,
    unit_vectors,
    values_gradient,
    weights,
)

_SIZES = [
    'heads', 'region_rows', 'region_cols', 'height', 'width', 'groups', 'programs', 'chunk_size', 'rows', 'chunks',
]  # fmt: skip


@triton.jit
def _chunk(groups, chunk_size, points):
    """Return a program's group, and its first point and the first behind it."""
    group, chunk = tl.program_id(0) % groups, tl.program_id(0) // groups
    return group, chunk * chunk_size, tl.minimum((chunk + 1) * chunk_size, points)


@triton.jit(do_not_specialize=_SIZES)
def pool_chunk(
    points,
    partial,
    points_pitch,
    groups,
    chunk_size,
    heads,
    region_rows,
    region_cols,
    height,
    width,
    ROWS: tl.constexpr,
    COLS: tl.constexpr,
    D: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """Write what a chunk adds to the pooled points, [T, G, M, D]."""
    group, start, last = _chunk(groups, chunk_size, height * width)
    head, first, map_width = locate(group, heads, region_rows, region_cols, height, width)
    total_MD = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    for begin in range(start, last, BLOCK_N):
        _, inside_N, row_N, col_N = take_block(begin, last, width, BLOCK_N)
        f_ND = load_points(points, points_pitch, head, first, row_N * map_width + col_N, inside_N, D, BLOCK_D)
        total_MD += count_dot(members(row_N, col_N, height, width, ROWS, COLS, BLOCK_M), f_ND)
    share_M = window_shares(height, width, ROWS, COLS, BLOCK_M)
    store_partial(partial, total_MD * share_M[:, None], ROWS * COLS, D, BLOCK_M, BLOCK_D)


@triton.jit(do_not_specialize=_SIZES)
def finish_unit(partial, unit, inverse_length, rows, chunks, D: tl.constexpr, BLOCK_D: tl.constexpr):
    """One center: its pooled point at length one, and one over the length before."""
    row = tl.program_id(0)
    unit_1D, inverse_1 = unit_vectors(sum_chunks(partial, row, rows, chunks, D, BLOCK_D)[None, :])
    d_1D = tl.arange(0, BLOCK_D)[None, :]
    tl.store(unit + row.to(tl.int64) * D + d_1D, unit_1D, mask=d_1D < D)
    tl.store(inverse_length + row + tl.arange(0, 1), inverse_1)


@triton.jit(do_not_specialize=_SIZES)
def assign_chunk(
    points,
    values,
    alpha,
    beta,
    unit,
    index,
    similarity,
    partial,
    partial_weight,
    points_pitch,
    values_pitch,
    groups,
    chunk_size,
    heads,
    region_rows,
    region_cols,
    height,
    width,
    ROWS: tl.constexpr,
    COLS: tl.constexpr,
    D: tl.constexpr,
    DV: tl.constexpr,
    COUNT: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_DV: tl.constexpr,
):
    """Assign the points of a chunk, and what they add to the centers: values [T, G, M, D'] and weights [T, G, M]."""
    group, start, last = _chunk(groups, chunk_size, height * width)
    head, first, map_width = locate(group, heads, region_rows, region_cols, height, width)
    unit_MD = load_centers(unit, group, ROWS * COLS, D, BLOCK_M, BLOCK_D)
    share_M = window_shares(height, width, ROWS, COLS, BLOCK_M)
    scale, shift = tl.load(alpha).to(tl.float32), tl.load(beta).to(tl.float32)
    index += group.to(tl.int64) * (height * width)
    similarity += group.to(tl.int64) * (height * width)
    total_MD = tl.zeros([BLOCK_M, BLOCK_DV], tl.float32)
    weight_M = tl.zeros([BLOCK_M], tl.float32)
    for begin in range(start, last, BLOCK_N):
        n_N, inside_N, row_N, col_N = take_block(begin, last, width, BLOCK_N)
        offset_N = row_N * map_width + col_N
        f_ND = load_points(points, points_pitch, head, first, offset_N, inside_N, D, BLOCK_D)
        v_ND = load_points(values, values_pitch, head, first, offset_N, inside_N, DV, BLOCK_DV)
        index_N, s_N = assign(f_ND, unit_MD, inside_N, scale, shift, ROWS * COLS, BLOCK_M)
        tl.store(index + n_N, index_N.to(tl.uint8), mask=inside_N)
        tl.store(similarity + n_N, s_N, mask=inside_N)
        weight_M += weights(index_N, s_N, inside_N, COUNT, BLOCK_M)
        member_MN = members(row_N, col_N, height, width, ROWS, COLS, BLOCK_M)
        total_MD += held_sum(index_N, s_N, member_MN, share_M, v_ND, BLOCK_M)
    store_partial(partial, total_MD, ROWS * COLS, DV, BLOCK_M, BLOCK_DV)
    store_partial(partial_weight, weight_M[:, None], ROWS * COLS, 1, BLOCK_M, 1)


@triton.jit(do_not_specialize=_SIZES)
def finish_held(partial, partial_weight, held, weight, rows, chunks, D: tl.constexpr, BLOCK_D: tl.constexpr):
    """One center: what it holds, and its denominator."""
    row = tl.program_id(0)
    weight_1 = 1.0 + sum_chunks(partial_weight, row, rows, chunks, 1, 1)
    d_D = tl.arange(0, BLOCK_D)
    held_D = sum_chunks(partial, row, rows, chunks, D, BLOCK_D) / weight_1
    tl.store(held + row.to(tl.int64) * D + d_D, held_D, mask=d_D < D)
    tl.store(weight + row + tl.arange(0, 1), weight_1)


@triton.jit(do_not_specialize=_SIZES)
def dispatch_chunk(
    held,
    index,
    similarity,
    mixed,
    mixed_pitch,
    groups,
    chunk_size,
    heads,
    region_rows,
    region_cols,
    height,
    width,
    M: tl.constexpr,
    DV: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_DV: tl.constexpr,
):
    """Hand the points of a chunk what their centers hold."""
    group, start, last = _chunk(groups, chunk_size, height * width)
    head, first, map_width = locate(group, heads, region_rows, region_cols, height, width)
    index += group.to(tl.int64) * (height * width)
    similarity += group.to(tl.int64) * (height * width)
    for begin in range(start, last, BLOCK_N):
        n_N, inside_N, row_N, col_N = take_block(begin, last, width, BLOCK_N)
        index_N = tl.load(index + n_N, mask=inside_N, other=0).to(tl.int32)
        s_N = tl.load(similarity + n_N, mask=inside_N, other=0.0)
        out_ND = s_N[:, None] * gather_centers(held, group, index_N, inside_N, M, DV, BLOCK_DV)
        store_points(mixed, mixed_pitch, out_ND, head, first, row_N * map_width + col_N, inside_N, DV, BLOCK_DV)


@triton.jit(do_not_specialize=_SIZES)
def grad_sum_chunk(
    grad,
    index,
    similarity,
    partial,
    grad_pitch,
    groups,
    chunk_size,
    heads,
    region_rows,
    region_cols,
    height,
    width,
    M: tl.constexpr,
    DV: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_DV: tl.constexpr,
):
    """Write what a chunk adds to the gradient of what the centers hold, [T, G, M, D']."""
    group, start, last = _chunk(groups, chunk_size, height * width)
    head, first, map_width = locate(group, heads, region_rows, region_cols, height, width)
    index += group.to(tl.int64) * (height * width)
    similarity += group.to(tl.int64) * (height * width)
    total_MD = tl.zeros([BLOCK_M, BLOCK_DV], tl.float32)
    for begin in range(start, last, BLOCK_N):
        n_N, inside_N, row_N, col_N = take_block(begin, last, width, BLOCK_N)
        index_N = tl.load(index + n_N, mask=inside_N, other=0).to(tl.int32)
        s_N = tl.load(similarity + n_N, mask=inside_N, other=0.0)
        g_ND = load_points(grad, grad_pitch, head, first, row_N * map_width + col_N, inside_N, DV, BLOCK_DV)
        total_MD += own_sum(index_N, s_N, g_ND, BLOCK_M)
    store_partial(partial, total_MD, M, DV, BLOCK_M, BLOCK_DV)


@triton.jit(do_not_specialize=_SIZES)
def finish_grad_sum(partial, weight, grad_sum, rows, chunks, D: tl.constexpr, BLOCK_D: tl.constexpr):
    """One center: the gradient of its sum."""
    row = tl.program_id(0)
    d_D = tl.arange(0, BLOCK_D)
    grad_D = sum_chunks(partial, row, rows, chunks, D, BLOCK_D) / tl.load(weight + row)
    tl.store(grad_sum + row.to(tl.int64) * D + d_D, grad_D, mask=d_D < D)


@triton.jit(do_not_specialize=_SIZES)
def values_backward_chunk(
    grad,
    values,
    index,
    similarity,
    held,
    grad_sum,
    grad_values,
    grad_z,
    grad_pitch,
    values_pitch,
    grad_values_pitch,
    groups,
    chunk_size,
    heads,
    region_rows,
    region_cols,
    height,
    width,
    ROWS: tl.constexpr,
    COLS: tl.constexpr,
    DV: tl.constexpr,
    COUNT: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_DV: tl.constexpr,
):
    """Write the gradients of a chunk's values and of its points' z."""
    group, start, last = _chunk(groups, chunk_size, height * width)
    head, first, map_width = locate(group, heads, region_rows, region_cols, height, width)
    held_MD = load_centers(held, group, ROWS * COLS, DV, BLOCK_M, BLOCK_DV)
    grad_sum_MD = load_centers(grad_sum, group, ROWS * COLS, DV, BLOCK_M, BLOCK_DV)
    share_M = window_shares(height, width, ROWS, COLS, BLOCK_M)
    index += group.to(tl.int64) * (height * width)
    similarity += group.to(tl.int64) * (height * width)
    grad_z += group.to(tl.int64) * (height * width)
    for begin in range(start, last, BLOCK_N):
        n_N, inside_N, row_N, col_N = take_block(begin, last, width, BLOCK_N)
        offset_N = row_N * map_width + col_N
        index_N = tl.load(index + n_N, mask=inside_N, other=0).to(tl.int32)
        s_N = tl.load(similarity + n_N, mask=inside_N, other=0.0)
        g_ND = load_points(grad, grad_pitch, head, first, offset_N, inside_N, DV, BLOCK_DV)
        v_ND = load_points(values, values_pitch, head, first, offset_N, inside_N, DV, BLOCK_DV)
        held_ND = gather_centers(held, group, index_N, inside_N, ROWS * COLS, DV, BLOCK_DV)
        grad_sum_ND = gather_centers(grad_sum, group, index_N, inside_N, ROWS * COLS, DV, BLOCK_DV)
        grad_v_ND, grad_z_N = values_gradient(
            g_ND, v_ND, index_N, s_N, held_MD, grad_sum_MD, held_ND, grad_sum_ND, share_M, row_N, col_N, height, width,
            ROWS, COLS, COUNT, BLOCK_N, BLOCK_M, BLOCK_DV,
        )  # fmt: skip
        tl.store(grad_z + n_N, grad_z_N, mask=inside_N)
        store_points(grad_values, grad_values_pitch, grad_v_ND, head, first, offset_N, inside_N, DV, BLOCK_DV)


@triton.jit(do_not_specialize=_SIZES)
def unit_sum_chunk(
    points,
    alpha,
    index,
    grad_z,
    partial,
    points_pitch,
    groups,
    chunk_size,
    heads,
    region_rows,
    region_cols,
    height,
    width,
    M: tl.constexpr,
    D: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """Write what a chunk adds to the gradient of the unit centers, [T, G, M, D]."""
    group, start, last = _chunk(groups, chunk_size, height * width)
    head, first, map_width = locate(group, heads, region_rows, region_cols, height, width)
    scale = tl.load(alpha).to(tl.float32)
    index += group.to(tl.int64) * (height * width)
    grad_z += group.to(tl.int64) * (height * width)
    total_MD = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    for begin in range(start, last, BLOCK_N):
        n_N, inside_N, row_N, col_N = take_block(begin, last, width, BLOCK_N)
        index_N = tl.load(index + n_N, mask=inside_N, other=0).to(tl.int32)
        grad_z_N = tl.load(grad_z + n_N, mask=inside_N, other=0.0)
        f_ND = load_points(points, points_pitch, head, first, row_N * map_width + col_N, inside_N, D, BLOCK_D)
        total_MD += unit_sum(index_N, scale * grad_z_N * inverse_lengths(f_ND)[0], f_ND, BLOCK_M)
    store_partial(partial, total_MD, M, D, BLOCK_M, BLOCK_D)


@triton.jit(do_not_specialize=_SIZES)
def finish_grad_centers(
    partial, unit, inverse_length, grad_centers, rows, chunks, D: tl.constexpr, BLOCK_D: tl.constexpr
):
    """One center: the gradient of its pooled point."""
    row = tl.program_id(0)
    offset_1D = row.to(tl.int64) * D + tl.arange(0, BLOCK_D)[None, :]
    mask_1D = (tl.arange(0, BLOCK_D) < D)[None, :]
    unit_1D = tl.load(unit + offset_1D, mask=mask_1D, other=0.0)
    inverse_1 = tl.load(inverse_length + row + tl.arange(0, 1))
    grad_unit_1D = sum_chunks(partial, row, rows, chunks, D, BLOCK_D)[None, :]
    tl.store(grad_centers + offset_1D, unit_gradient(grad_unit_1D, unit_1D, inverse_1), mask=mask_1D)


@triton.jit(do_not_specialize=_SIZES)
def points_backward_chunk(
    points,
    alpha,
    index,
    grad_z,
    unit,
    grad_centers,
    grad_points,
    partial_scalars,
    points_pitch,
    grad_points_pitch,
    programs,
    groups,
    chunk_size,
    heads,
    region_rows,
    region_cols,
    height,
    width,
    ROWS: tl.constexpr,
    COLS: tl.constexpr,
    D: tl.constexpr,
    FEW_N: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """Write the gradient of a chunk's points, and what the chunk adds to those of alpha and beta."""
    group, start, last = _chunk(groups, chunk_size, height * width)
    head, first, map_width = locate(group, heads, region_rows, region_cols, height, width)
    grad_center_MD = load_centers(grad_centers, group, ROWS * COLS, D, BLOCK_M, BLOCK_D)
    share_M = window_shares(height, width, ROWS, COLS, BLOCK_M)
    scale = tl.load(alpha).to(tl.float32)
    index += group.to(tl.int64) * (height * width)
    grad_z += group.to(tl.int64) * (height * width)
    grad_alpha_N = tl.zeros([FEW_N], tl.float32)
    grad_beta_N = tl.zeros([FEW_N], tl.float32)
    for begin in range(start, last, FEW_N):
        n_N, inside_N, row_N, col_N = take_block(begin, last, width, FEW_N)
        offset_N = row_N * map_width + col_N
        index_N = tl.load(index + n_N, mask=inside_N, other=0).to(tl.int32)
        grad_z_N = tl.load(grad_z + n_N, mask=inside_N, other=0.0)
        f_ND = load_points(points, points_pitch, head, first, offset_N, inside_N, D, BLOCK_D)
        unit_ND = gather_centers(unit, group, index_N, inside_N, ROWS * COLS, D, BLOCK_D)
        grad_f_ND, cosine_N = points_gradient(
            f_ND, index_N, grad_z_N, scale, unit_ND, grad_center_MD, share_M, row_N, col_N, height, width,
            ROWS, COLS, FEW_N, BLOCK_M, BLOCK_D,
        )  # fmt: skip
        grad_alpha_N += grad_z_N * cosine_N
        grad_beta_N += grad_z_N
        store_points(grad_points, grad_points_pitch, grad_f_ND, head, first, offset_N, inside_N, D, BLOCK_D)
    tl.store(partial_scalars + tl.program_id(0), tl.sum(grad_alpha_N))
    tl.store(partial_scalars + programs + tl.program_id(0), tl.sum(grad_beta_N))
