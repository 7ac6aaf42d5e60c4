"""Kernels of regions that one program handles: it reads the points in blocks, twice.

What it reads the second time is in the cache still. The backward is two kernels, one for the values and one for the
points, as both at once would not fit in the registers; what passes between them is a number for each point.
"""

import triton
import triton.language as tl

from coc_core.ops.triton.maps import load_points, locate, members, store_points, take_block, window_shares
from coc_core.ops.triton.products import count_dot
from coc_core.ops.triton.steps import (
    assign,
    hand_out,
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

_SIZES = ['heads', 'region_rows', 'region_cols', 'height', 'width', 'programs']


@triton.jit(do_not_specialize=_SIZES)
def forward_whole(
    points,
    values,
    alpha,
    beta,
    mixed,
    index,
    similarity,
    points_pitch,
    values_pitch,
    mixed_pitch,
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
    """Mix the values of a group."""
    group, last = tl.program_id(0), height * width
    head, first, map_width = locate(group, heads, region_rows, region_cols, height, width)
    share_M = window_shares(height, width, ROWS, COLS, BLOCK_M)
    scale, shift = tl.load(alpha).to(tl.float32), tl.load(beta).to(tl.float32)
    index += group.to(tl.int64) * last
    similarity += group.to(tl.int64) * last

    center_MD = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    for start in range(0, last, BLOCK_N):
        _, inside_N, row_N, col_N = take_block(start, last, width, BLOCK_N)
        f_ND = load_points(points, points_pitch, head, first, row_N * map_width + col_N, inside_N, D, BLOCK_D)
        center_MD += count_dot(members(row_N, col_N, height, width, ROWS, COLS, BLOCK_M), f_ND)
    unit_MD, _ = unit_vectors(center_MD * share_M[:, None])

    held_MD = tl.zeros([BLOCK_M, BLOCK_DV], tl.float32)
    weight_M = tl.full([BLOCK_M], 1.0, tl.float32)
    for start in range(0, last, BLOCK_N):
        n_N, inside_N, row_N, col_N = take_block(start, last, width, BLOCK_N)
        offset_N = row_N * map_width + col_N
        f_ND = load_points(points, points_pitch, head, first, offset_N, inside_N, D, BLOCK_D)
        v_ND = load_points(values, values_pitch, head, first, offset_N, inside_N, DV, BLOCK_DV)
        index_N, s_N = assign(f_ND, unit_MD, inside_N, scale, shift, ROWS * COLS, BLOCK_M)
        tl.store(index + n_N, index_N.to(tl.uint8), mask=inside_N)
        tl.store(similarity + n_N, s_N, mask=inside_N)
        weight_M += weights(index_N, s_N, inside_N, COUNT, BLOCK_M)
        member_MN = members(row_N, col_N, height, width, ROWS, COLS, BLOCK_M)
        held_MD += held_sum(index_N, s_N, member_MN, share_M, v_ND, BLOCK_M)
    held_MD *= (1.0 / weight_M)[:, None]

    # Other threads read what some have written.
    tl.debug_barrier()
    for start in range(0, last, BLOCK_N):
        n_N, inside_N, row_N, col_N = take_block(start, last, width, BLOCK_N)
        index_N = tl.load(index + n_N, mask=inside_N, other=0).to(tl.int32)
        s_N = tl.load(similarity + n_N, mask=inside_N, other=0.0)
        out_ND = s_N[:, None] * hand_out(held_MD, index_N, BLOCK_N, BLOCK_DV)
        store_points(mixed, mixed_pitch, out_ND, head, first, row_N * map_width + col_N, inside_N, DV, BLOCK_DV)


@triton.jit(do_not_specialize=_SIZES)
def values_backward_whole(
    grad,
    values,
    index,
    similarity,
    grad_values,
    grad_z,
    grad_pitch,
    values_pitch,
    grad_values_pitch,
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
    """Write the gradients of a group's values and of its points' z."""
    group, last = tl.program_id(0), height * width
    head, first, map_width = locate(group, heads, region_rows, region_cols, height, width)
    share_M = window_shares(height, width, ROWS, COLS, BLOCK_M)
    index += group.to(tl.int64) * last
    similarity += group.to(tl.int64) * last
    grad_z += group.to(tl.int64) * last

    held_MD = tl.zeros([BLOCK_M, BLOCK_DV], tl.float32)
    grad_sum_MD = tl.zeros([BLOCK_M, BLOCK_DV], tl.float32)
    weight_M = tl.full([BLOCK_M], 1.0, tl.float32)
    for start in range(0, last, BLOCK_N):
        n_N, inside_N, row_N, col_N = take_block(start, last, width, BLOCK_N)
        offset_N = row_N * map_width + col_N
        index_N = tl.load(index + n_N, mask=inside_N, other=0).to(tl.int32)
        s_N = tl.load(similarity + n_N, mask=inside_N, other=0.0)
        g_ND = load_points(grad, grad_pitch, head, first, offset_N, inside_N, DV, BLOCK_DV)
        v_ND = load_points(values, values_pitch, head, first, offset_N, inside_N, DV, BLOCK_DV)
        weight_M += weights(index_N, s_N, inside_N, COUNT, BLOCK_M)
        member_MN = members(row_N, col_N, height, width, ROWS, COLS, BLOCK_M)
        held_MD += held_sum(index_N, s_N, member_MN, share_M, v_ND, BLOCK_M)
        grad_sum_MD += own_sum(index_N, s_N, g_ND, BLOCK_M)
    held_MD *= (1.0 / weight_M)[:, None]
    grad_sum_MD *= (1.0 / weight_M)[:, None]

    for start in range(0, last, BLOCK_N):
        n_N, inside_N, row_N, col_N = take_block(start, last, width, BLOCK_N)
        offset_N = row_N * map_width + col_N
        index_N = tl.load(index + n_N, mask=inside_N, other=0).to(tl.int32)
        s_N = tl.load(similarity + n_N, mask=inside_N, other=0.0)
        g_ND = load_points(grad, grad_pitch, head, first, offset_N, inside_N, DV, BLOCK_DV)
        v_ND = load_points(values, values_pitch, head, first, offset_N, inside_N, DV, BLOCK_DV)
        held_ND = hand_out(held_MD, index_N, BLOCK_N, BLOCK_DV)
        grad_sum_ND = hand_out(grad_sum_MD, index_N, BLOCK_N, BLOCK_DV)
        grad_v_ND, grad_z_N = values_gradient(
            g_ND, v_ND, index_N, s_N, held_MD, grad_sum_MD, held_ND, grad_sum_ND, share_M, row_N, col_N, height, width,
            ROWS, COLS, COUNT, BLOCK_N, BLOCK_M, BLOCK_DV,
        )  # fmt: skip
        tl.store(grad_z + n_N, grad_z_N, mask=inside_N)
        store_points(grad_values, grad_values_pitch, grad_v_ND, head, first, offset_N, inside_N, DV, BLOCK_DV)


@triton.jit(do_not_specialize=_SIZES)
def points_backward_whole(
    points,
    alpha,
    index,
    grad_z,
    grad_points,
    partial_scalars,
    points_pitch,
    grad_points_pitch,
    programs,
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
    """Write the gradient of a group's points, and what the group adds to those of alpha and beta."""
    group, last = tl.program_id(0), height * width
    head, first, map_width = locate(group, heads, region_rows, region_cols, height, width)
    share_M = window_shares(height, width, ROWS, COLS, BLOCK_M)
    scale = tl.load(alpha).to(tl.float32)
    index += group.to(tl.int64) * last
    grad_z += group.to(tl.int64) * last

    center_MD = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    grad_unit_MD = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    for start in range(0, last, FEW_N):
        n_N, inside_N, row_N, col_N = take_block(start, last, width, FEW_N)
        index_N = tl.load(index + n_N, mask=inside_N, other=0).to(tl.int32)
        grad_z_N = tl.load(grad_z + n_N, mask=inside_N, other=0.0)
        f_ND = load_points(points, points_pitch, head, first, row_N * map_width + col_N, inside_N, D, BLOCK_D)
        center_MD += count_dot(members(row_N, col_N, height, width, ROWS, COLS, BLOCK_M), f_ND)
        grad_unit_MD += unit_sum(index_N, scale * grad_z_N * inverse_lengths(f_ND)[0], f_ND, BLOCK_M)
    unit_MD, inverse_M = unit_vectors(center_MD * share_M[:, None])
    grad_center_MD = unit_gradient(grad_unit_MD, unit_MD, inverse_M)

    grad_alpha_N = tl.zeros([FEW_N], tl.float32)
    grad_beta_N = tl.zeros([FEW_N], tl.float32)
    for start in range(0, last, FEW_N):
        n_N, inside_N, row_N, col_N = take_block(start, last, width, FEW_N)
        offset_N = row_N * map_width + col_N
        index_N = tl.load(index + n_N, mask=inside_N, other=0).to(tl.int32)
        grad_z_N = tl.load(grad_z + n_N, mask=inside_N, other=0.0)
        f_ND = load_points(points, points_pitch, head, first, offset_N, inside_N, D, BLOCK_D)
        unit_ND = hand_out(unit_MD, index_N, FEW_N, BLOCK_D)
        grad_f_ND, cosine_N = points_gradient(
            f_ND, index_N, grad_z_N, scale, unit_ND, grad_center_MD, share_M, row_N, col_N, height, width,
            ROWS, COLS, FEW_N, BLOCK_M, BLOCK_D,
        )  # fmt: skip
        grad_alpha_N += grad_z_N * cosine_N
        grad_beta_N += grad_z_N
        store_points(grad_points, grad_points_pitch, grad_f_ND, head, first, offset_N, inside_N, D, BLOCK_D)
    tl.store(partial_scalars + group, tl.sum(grad_alpha_N))
    tl.store(partial_scalars + programs + group, tl.sum(grad_beta_N))
