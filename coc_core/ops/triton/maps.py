"""Where things lie: the points of a region in its map, its pooling windows, the numbers that its centers hold.

Suffixes as in `coc_core.ops.regions`, and T for the chunks of a region; a kernel's N is a block of points, M and D are
padded to powers of two. A program works on one group: one head of one region of one image. Groups are numbered with the
heads running fastest, so that programs that run side by side share the cache lines of a map. A map's positions lie
equally far apart, ``pitch`` elements, with the heads side by side in each. Sizes of a region are numbers that a program
is given, so that a kernel is compiled once for all image sizes.
"""

import triton
import triton.language as tl

from coc_core.ops import regions

# The interpreter multiplies the bit patterns of bfloat16.
INTERPRETED = tl.constexpr(bool(triton.knobs.runtime.interpret))
window_bounds = regions.window_bounds if INTERPRETED else triton.jit(regions.window_bounds)


@triton.jit
def locate(group, heads, region_rows, region_cols, height, width):
    """Return a group's head, the position of its region's first point, int64, and the width of the map."""
    head = group % heads
    cell = group // heads
    col = (cell % region_cols) * width
    cell = cell // region_cols
    row = (cell % region_rows) * height
    image = (cell // region_rows).to(tl.int64)
    map_width = region_cols * width
    return head, (image * (region_rows * height) + row) * map_width + col, map_width


@triton.jit
def take_block(first, last, width, BLOCK_N: tl.constexpr):
    """Return the numbers of a region's points from ``first``, which are before ``last``, their rows and columns.

    A product in place of a division: exact up to a million points.
    """
    n_N = first + tl.arange(0, BLOCK_N)
    row_N = ((n_N.to(tl.float32) + 0.5) * (1.0 / width)).to(tl.int32)
    return n_N, n_N < last, row_N, n_N - row_N * width


@triton.jit
def _mask(inside_N, D: tl.constexpr, BLOCK_D: tl.constexpr):
    # A mask that is known to hold for whole vectors of channels lets them be loaded at once.
    return inside_N[:, None] if D == BLOCK_D else inside_N[:, None] & (tl.arange(0, BLOCK_D) < D)[None, :]


@triton.jit
def load_points(pointer, pitch, head, first, offset_N, inside_N, D: tl.constexpr, BLOCK_D: tl.constexpr):
    """Return a block of a group's points as [N, D], zero outside; ``offset_N`` counts positions from the first."""
    start = pointer + first * pitch + head * D
    offset_ND = (offset_N * pitch)[:, None] + tl.arange(0, BLOCK_D)[None, :]
    return tl.load(start + offset_ND, mask=_mask(inside_N, D, BLOCK_D), other=0.0)


@triton.jit
def store_points(pointer, pitch, x_ND, head, first, offset_N, inside_N, D: tl.constexpr, BLOCK_D: tl.constexpr):
    """Write [N, D] to a block of a group's points, rounded to the type of the map."""
    start = pointer + first * pitch + head * D
    offset_ND = (offset_N * pitch)[:, None] + tl.arange(0, BLOCK_D)[None, :]
    tl.store(start + offset_ND, _narrow(x_ND, pointer.dtype.element_ty), mask=_mask(inside_N, D, BLOCK_D))


@triton.jit
def _narrow(x, dtype: tl.constexpr):
    """Return a float32 tensor in another type, rounded to the nearest."""
    if INTERPRETED and dtype == tl.bfloat16:
        # The interpreter cuts the lower bits off.
        bits = x.to(tl.int32, bitcast=True)
        x = (bits + 0x7FFF + ((bits >> 16) & 1)).to(tl.float32, bitcast=True)
    return x.to(dtype)


@triton.jit
def load_centers(pointer, group, M: tl.constexpr, D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_D: tl.constexpr):
    """Return what the centers of a group hold, from [G, M, D] to a padded [M, D]."""
    m_M, d_D = tl.arange(0, BLOCK_M), tl.arange(0, BLOCK_D)
    offset_MD = m_M[:, None] * D + d_D[None, :]
    mask_MD = (m_M < M)[:, None] & (d_D < D)[None, :]
    return tl.load(pointer + group.to(tl.int64) * (M * D) + offset_MD, mask=mask_MD, other=0.0)


@triton.jit
def gather_centers(pointer, group, index_N, inside_N, M: tl.constexpr, D: tl.constexpr, BLOCK_D: tl.constexpr):
    """Return what each point's center holds, from [G, M, D] to [N, D]."""
    offset_ND = (index_N * D)[:, None] + tl.arange(0, BLOCK_D)[None, :]
    return tl.load(pointer + group.to(tl.int64) * (M * D) + offset_ND, mask=_mask(inside_N, D, BLOCK_D), other=0.0)


@triton.jit
def store_partial(partial, x_MD, M: tl.constexpr, D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_D: tl.constexpr):
    """Write a program's partial sums, [M, D] of [T, G, M, D]."""
    m_M, d_D = tl.arange(0, BLOCK_M), tl.arange(0, BLOCK_D)
    start = partial + tl.program_id(0).to(tl.int64) * (M * D)
    tl.store(start + m_M[:, None] * D + d_D[None, :], x_MD, mask=(m_M < M)[:, None] & (d_D < D)[None, :])


@triton.jit
def sum_chunks(pointer, row, rows, chunks, D: tl.constexpr, BLOCK_D: tl.constexpr):
    """One row of partial sums [T, rows, D], added up in a fixed order: [D]."""
    d_D = tl.arange(0, BLOCK_D)
    t_T = tl.arange(0, 16)
    total_D = tl.zeros([BLOCK_D], tl.float32)
    for first in range(0, chunks, 16):
        chunk_T = first + t_T
        offset_TD = (chunk_T[:, None].to(tl.int64) * rows + row) * D + d_D[None, :]
        mask_TD = (chunk_T < chunks)[:, None] & (d_D < D)[None, :]
        total_D += tl.sum(tl.load(pointer + offset_TD, mask=mask_TD, other=0.0), axis=0)
    return total_D


@triton.jit
def members(row_N, col_N, height, width, ROWS: tl.constexpr, COLS: tl.constexpr, BLOCK_M: tl.constexpr):
    """Tell which points lie in which pooling window, [M, N]; those behind the region's last lie in none."""
    m_M = tl.arange(0, BLOCK_M)
    top_M, bottom_M = window_bounds(m_M // COLS, height, ROWS)
    left_M, right_M = window_bounds(m_M % COLS, width, COLS)
    in_rows_MN = (row_N[None, :] >= top_M[:, None]) & (row_N[None, :] < bottom_M[:, None])
    in_cols_MN = (col_N[None, :] >= left_M[:, None]) & (col_N[None, :] < right_M[:, None])
    return in_rows_MN & in_cols_MN if BLOCK_M == ROWS * COLS else in_rows_MN & in_cols_MN & (m_M < ROWS * COLS)[:, None]


@triton.jit
def is_member(m: tl.constexpr, row_N, col_N, height, width, ROWS: tl.constexpr, COLS: tl.constexpr):
    """Tell which points lie in the pooling window of one center, [N]."""
    top, bottom = window_bounds(m // COLS, height, ROWS)
    left, right = window_bounds(m % COLS, width, COLS)
    return (row_N >= top) & (row_N < bottom) & (col_N >= left) & (col_N < right)


@triton.jit
def window_shares(height, width, ROWS: tl.constexpr, COLS: tl.constexpr, BLOCK_M: tl.constexpr):
    """Return one over each window's number of points, [M]."""
    m_M = tl.arange(0, BLOCK_M)
    top_M, bottom_M = window_bounds(m_M // COLS, height, ROWS)
    left_M, right_M = window_bounds(m_M % COLS, width, COLS)
    return 1.0 / ((bottom_M - top_M) * (right_M - left_M)).to(tl.float32)
