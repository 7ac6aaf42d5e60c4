"""What the kernels share: where a region lies in its map, pooling windows, products of float32 accuracy.

Suffixes as in `coc_core.ops.regions`, and T for the chunks of a region; a kernel's N is a block of points, M and D are
padded to powers of two. A program works on one group: one head of one region of one image. Groups are numbered with the
heads running fastest, so that programs that run side by side share the cache lines of a map.
"""

import triton
import triton.language as tl

from coc_core.ops import regions

# The interpreter multiplies the bit patterns of bfloat16.
INTERPRETED = tl.constexpr(bool(triton.knobs.runtime.interpret))
EPS = tl.constexpr(regions.NORM_EPS)
window_bounds = regions.window_bounds if INTERPRETED else triton.jit(regions.window_bounds)


@triton.jit
def locate(group, geometry):
    """Height and width of a region, and where a group lies: image, first row, first column and head.

    ``geometry`` is (heads, rows and columns of regions, height and width of a region). The image and the row are
    int64, so that offsets into the map are.
    """
    heads, region_rows, region_cols, height, width = geometry
    head = group % heads
    cell = group // heads
    col = (cell % region_cols) * width
    cell = cell // region_cols
    row = (cell % region_rows) * height
    return height, width, ((cell // region_rows).to(tl.int64), row.to(tl.int64), col, head)


@triton.jit
def load_points(pointer, strides, place, width, n_N, inside_N, D: tl.constexpr, BLOCK_D: tl.constexpr):
    """Points of a group, from a map with ``strides`` (image, row, column, head), as [N, D], zero outside."""
    image, row, col, head = place
    start = pointer + image * strides[0] + row * strides[1] + col * strides[2] + head * strides[3]
    offset_N = (n_N // width) * strides[1] + (n_N % width) * strides[2]
    d_D = tl.arange(0, BLOCK_D)
    mask_ND = inside_N[:, None] & (d_D < D)[None, :]
    return tl.load(start + offset_N[:, None] + d_D[None, :], mask=mask_ND, other=0.0)


@triton.jit
def store_points(pointer, pitch, x_ND, geometry, place, n_N, inside_N, D: tl.constexpr, BLOCK_D: tl.constexpr):
    """Write [N, D] to a group's points in a dense map, whose positions lie ``pitch`` elements apart."""
    _, region_rows, region_cols, height, width = geometry
    image, row, col, head = place
    map_width = region_cols * width
    start = pointer + ((image * (region_rows * height) + row) * map_width + col) * pitch + head * D
    offset_N = ((n_N // width) * map_width + n_N % width) * pitch
    d_D = tl.arange(0, BLOCK_D)
    mask_ND = inside_N[:, None] & (d_D < D)[None, :]
    tl.store(start + offset_N[:, None] + d_D[None, :], _narrow(x_ND, pointer.dtype.element_ty), mask=mask_ND)


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
    d_D = tl.arange(0, BLOCK_D)
    offset_ND = index_N[:, None] * D + d_D[None, :]
    mask_ND = inside_N[:, None] & (d_D < D)[None, :]
    return tl.load(pointer + group.to(tl.int64) * (M * D) + offset_ND, mask=mask_ND, other=0.0)


@triton.jit
def gather_rows(x_MD, index_N, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr):
    """Return what each point's center holds, [M, D] to [N, D], without leaving the chip."""
    return tl.gather(x_MD, tl.broadcast_to(index_N[:, None], BLOCK_N, BLOCK_D), 0)


@triton.jit
def windows(n_N, inside_N, height, width, ROWS: tl.constexpr, COLS: tl.constexpr, BLOCK_M: tl.constexpr):
    """Which points lie in which pooling window, [N, M], and one over each window's number of points, [M]."""
    m_M = tl.arange(0, BLOCK_M)
    i_M, j_M = m_M // COLS, m_M % COLS
    top_M, bottom_M = window_bounds(i_M, height, ROWS)
    left_M, right_M = window_bounds(j_M, width, COLS)
    row_N1, col_N1 = (n_N // width)[:, None], (n_N % width)[:, None]
    in_rows_NM = (row_N1 >= top_M[None, :]) & (row_N1 < bottom_M[None, :])
    in_cols_NM = (col_N1 >= left_M[None, :]) & (col_N1 < right_M[None, :])
    exists_NM = inside_N[:, None] & (m_M < ROWS * COLS)[None, :]
    area_M = (bottom_M - top_M) * (right_M - left_M)
    return in_rows_NM & in_cols_NM & exists_NM, 1.0 / area_M.to(tl.float32)


@triton.jit
def unit_vectors(x_MD):
    """Vectors of length one, and their lengths before."""
    length_M = tl.sqrt(tl.sum(x_MD * x_MD, axis=1))
    return x_MD / tl.maximum(length_M, EPS)[:, None], length_M


@triton.jit
def unit_gradient(grad_MD, unit_MD, length_M):
    """Return the gradient of `unit_vectors`: a vector below eps was divided by eps: it has none of its length."""
    along_M = tl.where(length_M >= EPS, tl.sum(grad_MD * unit_MD, axis=1), 0.0)
    return (grad_MD - along_M[:, None] * unit_MD) / tl.maximum(length_M, EPS)[:, None]


@triton.jit
def _half_dot(x, y):
    if INTERPRETED:
        return tl.dot(x.to(tl.float32), y.to(tl.float32))
    return tl.dot(x, y)


@triton.jit
def _split(x):
    """Return a float32 tensor as a sum of three in bfloat16, which has its range: 24 bits in three times eight."""
    high = x.to(tl.bfloat16)
    rest = x - high.to(tl.float32)
    middle = rest.to(tl.bfloat16)
    return high, middle, (rest - middle.to(tl.float32)).to(tl.bfloat16)


@triton.jit
def count_dot(member, y):
    """Return the product with a matrix of zeros and ones, as exact as float32 is: every type holds these."""
    # By way of float32: the interpreter takes an integer for the bits of a bfloat16.
    ones = member.to(tl.float32)
    if y.dtype == tl.float32:
        high, middle, low = _split(y)
        ones_half = ones.to(tl.bfloat16)
        return _half_dot(ones_half, low) + _half_dot(ones_half, middle) + _half_dot(ones_half, high)
    return _half_dot(ones.to(y.dtype), y)


@triton.jit
def dot(x, y):
    """Return the product of two matrices, of which at most one is in half precision, as exact as float32 is.

    Three products of the tensor cores either way, but those in bfloat16 cost half of those in TF32. Float16 has not
    the range to be split into.
    """
    if y.dtype == tl.bfloat16:
        high, middle, low = _split(x)
        return _half_dot(low, y) + _half_dot(middle, y) + _half_dot(high, y)
    if x.dtype == tl.bfloat16:
        high, middle, low = _split(y)
        return _half_dot(x, low) + _half_dot(x, middle) + _half_dot(x, high)
    return tl.dot(x.to(tl.float32), y.to(tl.float32), input_precision='tf32x3')


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
