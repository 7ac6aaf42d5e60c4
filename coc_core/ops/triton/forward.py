"""The forward kernels: one for regions that fit on the chip, four for larger ones, cut into chunks of points.

f are the points, v the values, z the similarity to a center before the sigmoid, s after it.
"""

import triton
import triton.language as tl

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
    unit_vectors,
    windows,
)


@triton.jit
def assign_block(f_ND, unit_MD, inside_N, alpha, beta, M: tl.constexpr, BLOCK_M: tl.constexpr):
    """Each point's center and similarity: the first center with the largest z, as the sigmoid may saturate."""
    wide_ND = f_ND.to(tl.float32)
    length_N = tl.maximum(tl.sqrt(tl.sum(wide_ND * wide_ND, axis=1)), EPS)
    z_NM = beta + alpha * (dot(f_ND, tl.trans(unit_MD)) / length_N[:, None])
    # Compiled, a maximum passes NaN over, and might find a padded center; PyTorch's takes NaN for the largest.
    z_NM = tl.where(z_NM == z_NM, z_NM, float('inf'))
    z_NM = tl.where((tl.arange(0, BLOCK_M) < M)[None, :], z_NM, float('-inf'))
    z_N, index_N = tl.max(z_NM, axis=1, return_indices=True, return_indices_tie_break_left=True)
    z_N = tl.where(z_N == float('inf'), float('nan'), z_N)
    return index_N, tl.where(inside_N, tl.sigmoid(z_N), 0.0)


@triton.jit
def shares(index_N, s_N, inside_N, COUNT: tl.constexpr, BLOCK_M: tl.constexpr):
    """Each point's similarity in its center's column, [N, M], and what the columns add to the denominator, [M]."""
    own_NM = (index_N[:, None] == tl.arange(0, BLOCK_M)[None, :]) & inside_N[:, None]
    s_NM = tl.where(own_NM, s_N[:, None], 0.0)
    return s_NM, tl.sum(own_NM.to(tl.float32) if COUNT else s_NM, axis=0)


@triton.jit(do_not_specialize=['regions'])
def forward_on_chip(
    points,
    values,
    alpha,
    beta,
    mixed,
    index,
    points_strides,
    values_strides,
    mixed_pitch,
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
    """Work on a whole group in one program: each input is read once."""
    group = tl.program_id(0)
    # Of a small region the sides are constants: divisions by them are cheap.
    geometry = (regions[0], regions[1], regions[2], HEIGHT, WIDTH)
    height, width, place = locate(group, geometry)
    n_N = tl.arange(0, BLOCK_N)
    inside_N = n_N < height * width
    f_ND = load_points(points, points_strides, place, width, n_N, inside_N, D, BLOCK_D)
    v_ND = load_points(values, values_strides, place, width, n_N, inside_N, DV, BLOCK_DV)
    member_NM, share_M = windows(n_N, inside_N, height, width, ROWS, COLS, BLOCK_M)
    unit_MD, _ = unit_vectors(count_dot(tl.trans(member_NM), f_ND) * share_M[:, None])
    scale, shift = tl.load(alpha).to(tl.float32), tl.load(beta).to(tl.float32)
    index_N, s_N = assign_block(f_ND, unit_MD, inside_N, scale, shift, ROWS * COLS, BLOCK_M)
    s_NM, weight_M = shares(index_N, s_N, inside_N, COUNT, BLOCK_M)
    # The pooled value and the cluster's sum in one product.
    pooled_NM = tl.where(member_NM, share_M[None, :], 0.0)
    held_MD = dot(tl.trans(s_NM + pooled_NM), v_ND) / (1.0 + weight_M)[:, None]
    out_ND = s_N[:, None] * gather_rows(held_MD, index_N, BLOCK_N, BLOCK_DV)
    store_points(mixed, mixed_pitch, out_ND, geometry, place, n_N, inside_N, DV, BLOCK_DV)
    tl.store(index + group.to(tl.int64) * (height * width) + n_N, index_N.to(tl.uint8), mask=inside_N)


@triton.jit(do_not_specialize=['geometry', 'groups', 'chunk_size'])
def pool_chunk(
    points,
    partial,
    points_strides,
    groups,
    geometry,
    chunk_size,
    ROWS: tl.constexpr,
    COLS: tl.constexpr,
    D: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """Write what a chunk adds to the pooled points, [T, G, M, D]."""
    group, chunk = tl.program_id(0) % groups, tl.program_id(0) // groups
    height, width, place = locate(group, geometry)
    total_MD = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    last = tl.minimum((chunk + 1) * chunk_size, height * width)
    for first in range(chunk * chunk_size, last, BLOCK_N):
        n_N = first + tl.arange(0, BLOCK_N)
        inside_N = n_N < last
        f_ND = load_points(points, points_strides, place, width, n_N, inside_N, D, BLOCK_D)
        member_NM, _ = windows(n_N, inside_N, height, width, ROWS, COLS, BLOCK_M)
        total_MD += count_dot(tl.trans(member_NM), f_ND)
    n_N = tl.arange(0, BLOCK_N)
    _, share_M = windows(n_N, n_N < last, height, width, ROWS, COLS, BLOCK_M)
    store_partial(partial, total_MD * share_M[:, None], ROWS * COLS, D, BLOCK_M, BLOCK_D)


@triton.jit
def store_partial(partial, x_MD, M: tl.constexpr, D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_D: tl.constexpr):
    """Write a program's partial sums."""
    m_M, d_D = tl.arange(0, BLOCK_M), tl.arange(0, BLOCK_D)
    start = partial + tl.program_id(0).to(tl.int64) * (M * D)
    tl.store(start + m_M[:, None] * D + d_D[None, :], x_MD, mask=(m_M < M)[:, None] & (d_D < D)[None, :])


@triton.jit(do_not_specialize=['rows', 'chunks'])
def finish_unit(partial, unit, length, rows, chunks, D: tl.constexpr, BLOCK_D: tl.constexpr):
    """One center: its pooled point at length one, and the length before."""
    row = tl.program_id(0)
    unit_1D, length_1 = unit_vectors(sum_chunks(partial, row, rows, chunks, D, BLOCK_D)[None, :])
    d_1D = tl.arange(0, BLOCK_D)[None, :]
    tl.store(unit + row.to(tl.int64) * D + d_1D, unit_1D, mask=d_1D < D)
    tl.store(length + row + tl.arange(0, 1), length_1)


@triton.jit(do_not_specialize=['geometry', 'groups', 'chunk_size'])
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
    points_strides,
    values_strides,
    groups,
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
    """Assign the points of a chunk, and what they add to the centers: values [T, G, M, D'] and weights [T, G, M]."""
    group, chunk = tl.program_id(0) % groups, tl.program_id(0) // groups
    height, width, place = locate(group, geometry)
    unit_MD = load_centers(unit, group, ROWS * COLS, D, BLOCK_M, BLOCK_D)
    scale, shift = tl.load(alpha).to(tl.float32), tl.load(beta).to(tl.float32)
    total_MD = tl.zeros([BLOCK_M, BLOCK_DV], tl.float32)
    weight_M = tl.zeros([BLOCK_M], tl.float32)
    last = tl.minimum((chunk + 1) * chunk_size, height * width)
    for first in range(chunk * chunk_size, last, BLOCK_N):
        n_N = first + tl.arange(0, BLOCK_N)
        inside_N = n_N < last
        f_ND = load_points(points, points_strides, place, width, n_N, inside_N, D, BLOCK_D)
        v_ND = load_points(values, values_strides, place, width, n_N, inside_N, DV, BLOCK_DV)
        index_N, s_N = assign_block(f_ND, unit_MD, inside_N, scale, shift, ROWS * COLS, BLOCK_M)
        s_NM, added_M = shares(index_N, s_N, inside_N, COUNT, BLOCK_M)
        member_NM, share_M = windows(n_N, inside_N, height, width, ROWS, COLS, BLOCK_M)
        total_MD += dot(tl.trans(s_NM + tl.where(member_NM, share_M[None, :], 0.0)), v_ND)
        weight_M += added_M
        offset_N = group.to(tl.int64) * (height * width) + n_N
        tl.store(index + offset_N, index_N.to(tl.uint8), mask=inside_N)
        tl.store(similarity + offset_N, s_N, mask=inside_N)
    store_partial(partial, total_MD, ROWS * COLS, DV, BLOCK_M, BLOCK_DV)
    store_partial(partial_weight, weight_M[:, None], ROWS * COLS, 1, BLOCK_M, 1)


@triton.jit(do_not_specialize=['rows', 'chunks'])
def finish_held(partial, partial_weight, held, weight, rows, chunks, D: tl.constexpr, BLOCK_D: tl.constexpr):
    """One center: what it holds, and its denominator."""
    row = tl.program_id(0)
    one = tl.arange(0, 1)
    weight_1 = 1.0 + sum_chunks(partial_weight, row, rows, chunks, 1, 1)
    d_D = tl.arange(0, BLOCK_D)
    held_D = sum_chunks(partial, row, rows, chunks, D, BLOCK_D) / weight_1
    tl.store(held + row.to(tl.int64) * D + d_D, held_D, mask=d_D < D)
    tl.store(weight + row + one, weight_1)


@triton.jit(do_not_specialize=['geometry', 'groups'])
def dispatch_block(
    held,
    index,
    similarity,
    mixed,
    mixed_pitch,
    groups,
    geometry,
    M: tl.constexpr,
    DV: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_DV: tl.constexpr,
):
    """Hand a block of points what their centers hold."""
    group, block = tl.program_id(0) % groups, tl.program_id(0) // groups
    height, width, place = locate(group, geometry)
    n_N = block * BLOCK_N + tl.arange(0, BLOCK_N)
    inside_N = n_N < height * width
    offset_N = group.to(tl.int64) * (height * width) + n_N
    index_N = tl.load(index + offset_N, mask=inside_N, other=0).to(tl.int32)
    s_N = tl.load(similarity + offset_N, mask=inside_N, other=0.0)
    out_ND = s_N[:, None] * gather_centers(held, group, index_N, inside_N, M, DV, BLOCK_DV)
    store_points(mixed, mixed_pitch, out_ND, geometry, place, n_N, inside_N, DV, BLOCK_DV)
