"""The backward kernels: one for regions that fit on the chip, five for larger ones. Nothing is added atomically.

g is the gradient of what a point receives; ``grad_sum`` is that of a center's sum before its division by the weight.
"""

import triton
import triton.language as tl

from coc_core.ops.triton.forward import shares, store_partial
from coc_core.ops.triton.shared import (
    EPS,
    count_dot,
    dot,
    gather_centers,
    gather_rows,
    load_centers,
    load_points,
    locate,
    store_points,
    sum_chunks,
    unit_gradient,
    unit_vectors,
    windows,
)


@triton.jit
def cosines(f_ND, unit_ND):
    """Each point's cosine with its center, its length, and the length it is divided by."""
    wide_ND = f_ND.to(tl.float32)
    length_N = tl.sqrt(tl.sum(wide_ND * wide_ND, axis=1))
    divisor_N = tl.maximum(length_N, EPS)
    return tl.sum(wide_ND * unit_ND, axis=1) / divisor_N, length_N, divisor_N


@triton.jit
def similarity_gradient(g_ND, v_ND, held_ND, grad_sum_ND, COUNT: tl.constexpr):
    """Return the gradient of each point's similarity: through what it receives, what it gives, and the denominator."""
    given_ND = v_ND.to(tl.float32)
    if not COUNT:
        given_ND -= held_ND
    return tl.sum(held_ND * g_ND.to(tl.float32) + grad_sum_ND * given_ND, axis=1)


@triton.jit
def direction_gradient(f_ND, unit_ND, scaled_N, cosine_N, length_N, divisor_N):
    """Return the points' gradient through their own cosine; a vector shorter than eps has none of its length."""
    along_N = tl.where(length_N >= EPS, scaled_N * cosine_N / divisor_N, 0.0)
    return scaled_N[:, None] * unit_ND - along_N[:, None] * f_ND.to(tl.float32)


@triton.jit
def pool_gradient(member_NM, share_M, grad_MD):
    """Return what each point gets from the pooling windows that it lies in."""
    return count_dot(member_NM, grad_MD * share_M[:, None])


@triton.jit(do_not_specialize=['regions', 'programs'])
def backward_on_chip(
    grad,
    points,
    values,
    alpha,
    beta,
    index,
    grad_points,
    grad_values,
    partial_scalars,
    grad_strides,
    points_strides,
    values_strides,
    grad_points_pitch,
    grad_values_pitch,
    programs,
    regions,
    HEIGHT: tl.constexpr,
    WIDTH: tl.constexpr,
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
    """Work on a whole group in one program: each input is read once; only the assignment comes from the forward."""
    group = tl.program_id(0)
    # Of a small region the sides are constants: divisions by them are cheap.
    geometry = (regions[0], regions[1], regions[2], HEIGHT, WIDTH)
    height, width, place = locate(group, geometry)
    n_N = tl.arange(0, BLOCK_N)
    inside_N = n_N < height * width
    index_N = tl.load(index + group.to(tl.int64) * (height * width) + n_N, mask=inside_N, other=0).to(tl.int32)
    f_ND = load_points(points, points_strides, place, width, n_N, inside_N, D, BLOCK_D)
    v_ND = load_points(values, values_strides, place, width, n_N, inside_N, DV, BLOCK_DV)
    g_ND = load_points(grad, grad_strides, place, width, n_N, inside_N, DV, BLOCK_DV)
    member_NM, share_M = windows(n_N, inside_N, height, width, ROWS, COLS, BLOCK_M)
    unit_MD, center_length_M = unit_vectors(count_dot(tl.trans(member_NM), f_ND) * share_M[:, None])
    unit_ND = gather_rows(unit_MD, index_N, BLOCK_N, BLOCK_D)
    cosine_N, length_N, divisor_N = cosines(f_ND, unit_ND)
    scale = tl.load(alpha).to(tl.float32)
    s_N = tl.where(inside_N, tl.sigmoid(tl.load(beta).to(tl.float32) + scale * cosine_N), 0.0)

    s_NM, weight_M = shares(index_N, s_N, inside_N, COUNT, BLOCK_M)
    pooled_NM = tl.where(member_NM, share_M[None, :], 0.0)
    held_MD = dot(tl.trans(s_NM + pooled_NM), v_ND) / (1.0 + weight_M)[:, None]
    grad_sum_MD = dot(tl.trans(s_NM), g_ND) / (1.0 + weight_M)[:, None]
    held_ND = gather_rows(held_MD, index_N, BLOCK_N, BLOCK_DV)
    grad_sum_ND = gather_rows(grad_sum_MD, index_N, BLOCK_N, BLOCK_DV)
    grad_z_N = similarity_gradient(g_ND, v_ND, held_ND, grad_sum_ND, COUNT) * s_N * (1.0 - s_N)
    grad_v_ND = s_N[:, None] * grad_sum_ND + pool_gradient(member_NM, share_M, grad_sum_MD)
    store_points(grad_values, grad_values_pitch, grad_v_ND, geometry, place, n_N, inside_N, DV, BLOCK_DV)

    scaled_N = scale * grad_z_N / divisor_N
    own_NM = index_N[:, None] == tl.arange(0, BLOCK_M)[None, :]
    grad_unit_MD = dot(tl.trans(tl.where(own_NM, scaled_N[:, None], 0.0)), f_ND)
    grad_centers_MD = unit_gradient(grad_unit_MD, unit_MD, center_length_M)
    grad_f_ND = direction_gradient(f_ND, unit_ND, scaled_N, cosine_N, length_N, divisor_N)
    grad_f_ND += pool_gradient(member_NM, share_M, grad_centers_MD)
    store_points(grad_points, grad_points_pitch, grad_f_ND, geometry, place, n_N, inside_N, D, BLOCK_D)
    tl.store(partial_scalars + group, tl.sum(grad_z_N * cosine_N))
    tl.store(partial_scalars + programs + group, tl.sum(grad_z_N))


@triton.jit(do_not_specialize=['geometry', 'groups', 'chunk_size'])
def grad_sum_chunk(
    grad,
    index,
    similarity,
    partial,
    grad_strides,
    groups,
    geometry,
    chunk_size,
    M: tl.constexpr,
    DV: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_DV: tl.constexpr,
):
    """Return what a chunk adds to the gradient of what the centers hold, [T, G, M, D']."""
    group, chunk = tl.program_id(0) % groups, tl.program_id(0) // groups
    height, width, place = locate(group, geometry)
    total_MD = tl.zeros([BLOCK_M, BLOCK_DV], tl.float32)
    last = tl.minimum((chunk + 1) * chunk_size, height * width)
    for first in range(chunk * chunk_size, last, BLOCK_N):
        n_N = first + tl.arange(0, BLOCK_N)
        inside_N = n_N < last
        offset_N = group.to(tl.int64) * (height * width) + n_N
        index_N = tl.load(index + offset_N, mask=inside_N, other=0).to(tl.int32)
        s_N = tl.load(similarity + offset_N, mask=inside_N, other=0.0)
        g_ND = load_points(grad, grad_strides, place, width, n_N, inside_N, DV, BLOCK_DV)
        s_NM, _ = shares(index_N, s_N, inside_N, False, BLOCK_M)
        total_MD += dot(tl.trans(s_NM), g_ND)
    store_partial(partial, total_MD, M, DV, BLOCK_M, BLOCK_DV)


@triton.jit(do_not_specialize=['rows', 'chunks'])
def finish_grad_sum(partial, weight, grad_sum, rows, chunks, D: tl.constexpr, BLOCK_D: tl.constexpr):
    """One center: the gradient of its sum."""
    row = tl.program_id(0)
    d_D = tl.arange(0, BLOCK_D)
    grad_D = sum_chunks(partial, row, rows, chunks, D, BLOCK_D) / tl.load(weight + row)
    tl.store(grad_sum + row.to(tl.int64) * D + d_D, grad_D, mask=d_D < D)


@triton.jit(do_not_specialize=['geometry', 'groups', 'programs', 'chunk_size'])
def grad_values_chunk(
    grad,
    points,
    values,
    alpha,
    index,
    similarity,
    unit,
    held,
    grad_sum,
    grad_values,
    scaled,
    partial_unit,
    partial_scalars,
    grad_strides,
    points_strides,
    values_strides,
    grad_values_pitch,
    groups,
    programs,
    geometry,
    chunk_size,
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
    """Return a chunk's gradient of the values and of z, and what it adds to that of the unit centers, [T, G, M, D]."""
    group, chunk = tl.program_id(0) % groups, tl.program_id(0) // groups
    height, width, place = locate(group, geometry)
    grad_sum_MD = load_centers(grad_sum, group, ROWS * COLS, DV, BLOCK_M, BLOCK_DV)
    scale = tl.load(alpha).to(tl.float32)
    total_MD = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    grad_alpha_N = tl.zeros([BLOCK_N], tl.float32)
    grad_beta_N = tl.zeros([BLOCK_N], tl.float32)
    last = tl.minimum((chunk + 1) * chunk_size, height * width)
    for first in range(chunk * chunk_size, last, BLOCK_N):
        n_N = first + tl.arange(0, BLOCK_N)
        inside_N = n_N < last
        offset_N = group.to(tl.int64) * (height * width) + n_N
        index_N = tl.load(index + offset_N, mask=inside_N, other=0).to(tl.int32)
        s_N = tl.load(similarity + offset_N, mask=inside_N, other=0.0)
        v_ND = load_points(values, values_strides, place, width, n_N, inside_N, DV, BLOCK_DV)
        g_ND = load_points(grad, grad_strides, place, width, n_N, inside_N, DV, BLOCK_DV)
        held_ND = gather_centers(held, group, index_N, inside_N, ROWS * COLS, DV, BLOCK_DV)
        grad_sum_ND = gather_centers(grad_sum, group, index_N, inside_N, ROWS * COLS, DV, BLOCK_DV)
        grad_z_N = similarity_gradient(g_ND, v_ND, held_ND, grad_sum_ND, COUNT) * s_N * (1.0 - s_N)
        member_NM, share_M = windows(n_N, inside_N, height, width, ROWS, COLS, BLOCK_M)
        grad_v_ND = s_N[:, None] * grad_sum_ND + pool_gradient(member_NM, share_M, grad_sum_MD)
        store_points(grad_values, grad_values_pitch, grad_v_ND, geometry, place, n_N, inside_N, DV, BLOCK_DV)

        f_ND = load_points(points, points_strides, place, width, n_N, inside_N, D, BLOCK_D)
        unit_ND = gather_centers(unit, group, index_N, inside_N, ROWS * COLS, D, BLOCK_D)
        cosine_N, _, divisor_N = cosines(f_ND, unit_ND)
        grad_alpha_N += grad_z_N * cosine_N
        grad_beta_N += grad_z_N
        scaled_N = scale * grad_z_N / divisor_N
        tl.store(scaled + offset_N, scaled_N, mask=inside_N)
        own_NM = index_N[:, None] == tl.arange(0, BLOCK_M)[None, :]
        total_MD += dot(tl.trans(tl.where(own_NM, scaled_N[:, None], 0.0)), f_ND)
    store_partial(partial_unit, total_MD, ROWS * COLS, D, BLOCK_M, BLOCK_D)
    tl.store(partial_scalars + tl.program_id(0), tl.sum(grad_alpha_N))
    tl.store(partial_scalars + programs + tl.program_id(0), tl.sum(grad_beta_N))


@triton.jit(do_not_specialize=['rows', 'chunks'])
def finish_grad_centers(partial, unit, length, grad_centers, rows, chunks, D: tl.constexpr, BLOCK_D: tl.constexpr):
    """One center: the gradient of its pooled point."""
    row = tl.program_id(0)
    offset_1D = row.to(tl.int64) * D + tl.arange(0, BLOCK_D)[None, :]
    mask_1D = (tl.arange(0, BLOCK_D) < D)[None, :]
    unit_1D = tl.load(unit + offset_1D, mask=mask_1D, other=0.0)
    length_1 = tl.load(length + row + tl.arange(0, 1))
    grad_unit_1D = sum_chunks(partial, row, rows, chunks, D, BLOCK_D)[None, :]
    tl.store(grad_centers + offset_1D, unit_gradient(grad_unit_1D, unit_1D, length_1), mask=mask_1D)


@triton.jit(do_not_specialize=['geometry', 'groups'])
def grad_points_block(
    points,
    index,
    scaled,
    unit,
    grad_centers,
    grad_points,
    points_strides,
    grad_points_pitch,
    groups,
    geometry,
    ROWS: tl.constexpr,
    COLS: tl.constexpr,
    D: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """Return the gradient of a block of points."""
    group, block = tl.program_id(0) % groups, tl.program_id(0) // groups
    height, width, place = locate(group, geometry)
    n_N = block * BLOCK_N + tl.arange(0, BLOCK_N)
    inside_N = n_N < height * width
    offset_N = group.to(tl.int64) * (height * width) + n_N
    index_N = tl.load(index + offset_N, mask=inside_N, other=0).to(tl.int32)
    scaled_N = tl.load(scaled + offset_N, mask=inside_N, other=0.0)
    f_ND = load_points(points, points_strides, place, width, n_N, inside_N, D, BLOCK_D)
    unit_ND = gather_centers(unit, group, index_N, inside_N, ROWS * COLS, D, BLOCK_D)
    cosine_N, length_N, divisor_N = cosines(f_ND, unit_ND)
    grad_f_ND = direction_gradient(f_ND, unit_ND, scaled_N, cosine_N, length_N, divisor_N)
    grad_centers_MD = load_centers(grad_centers, group, ROWS * COLS, D, BLOCK_M, BLOCK_D)
    member_NM, share_M = windows(n_N, inside_N, height, width, ROWS, COLS, BLOCK_M)
    grad_f_ND += pool_gradient(member_NM, share_M, grad_centers_MD)
    store_points(grad_points, grad_points_pitch, grad_f_ND, geometry, place, n_N, inside_N, D, BLOCK_D)
