"""The operator and its derivatives for a block of points: what the kernels of both forms are made of.

f are the points, v the values, z the similarity to a center before the sigmoid, s after it, g the gradient of what a
point receives. A center's ``grad_sum`` is the gradient of its sum before the division by its weight.
"""

import triton
import triton.language as tl

from coc_core.ops import regions
from coc_core.ops.triton.maps import is_member, members
from coc_core.ops.triton.products import NARROW, count_dot, dot

# A length below eps is taken for eps.
EPS_SQUARED = tl.constexpr(regions.NORM_EPS**2)


@triton.jit
def inverse_lengths(f_ND):
    """One over each point's length, and whether the length counts, as it does not below eps."""
    wide_ND = f_ND.to(tl.float32)
    square_N = tl.sum(wide_ND * wide_ND, axis=1)
    return tl.rsqrt(tl.maximum(square_N, EPS_SQUARED)), square_N >= EPS_SQUARED


@triton.jit
def assign(f_ND, unit_MD, inside_N, alpha, beta, M: tl.constexpr, BLOCK_M: tl.constexpr):
    """Each point's center and similarity: the first center with the largest z, as the sigmoid may saturate."""
    inverse_N, _ = inverse_lengths(f_ND)
    z_NM = beta + alpha * (dot(f_ND, tl.trans(unit_MD)) * inverse_N[:, None])
    # Compiled, a maximum passes NaN over, and might find a padded center; PyTorch's takes NaN for the largest.
    z_NM = tl.where(z_NM == z_NM, z_NM, float('inf'))
    if M < BLOCK_M:
        z_NM = tl.where((tl.arange(0, BLOCK_M) < M)[None, :], z_NM, float('-inf'))
    z_N, index_N = tl.max(z_NM, axis=1, return_indices=True, return_indices_tie_break_left=True)
    z_N = tl.where(z_N == float('inf'), float('nan'), z_N)
    return index_N, tl.where(inside_N, tl.sigmoid(z_N), 0.0)


@triton.jit
def own_sum(index_N, weight_N, y_ND, BLOCK_M: tl.constexpr):
    """Each center's sum over its points of a block, of what they have times their weights: [M, D]."""
    own_MN = index_N[None, :] == tl.arange(0, BLOCK_M)[:, None]
    if y_ND.shape[1] >= BLOCK_M:
        return dot(tl.where(own_MN, weight_N[None, :], 0.0), y_ND)
    else:
        return count_dot(own_MN, weight_N[:, None] * y_ND.to(tl.float32))


@triton.jit
def held_sum(index_N, s_N, member_MN, share_M, v_ND, BLOCK_M: tl.constexpr):
    """Return what a block adds to the centers' pooled values and sums: [M, D']."""
    if v_ND.shape[1] >= BLOCK_M:
        s_MN = tl.where(index_N[None, :] == tl.arange(0, BLOCK_M)[:, None], s_N[None, :], 0.0)
        return dot(s_MN + tl.where(member_MN, share_M[:, None], 0.0), v_ND)
    else:
        return own_sum(index_N, s_N, v_ND, BLOCK_M) + share_M[:, None] * count_dot(member_MN, v_ND)


@triton.jit
def weights(index_N, s_N, inside_N, COUNT: tl.constexpr, BLOCK_M: tl.constexpr):
    """Return what a block adds to the denominators, [M]."""
    each_N = inside_N.to(tl.float32) if COUNT else s_N
    # The threads of a warp lie along the last axis: the other one is summed up without asking them.
    if each_N.shape[0] < BLOCK_M:
        return tl.sum(tl.where(index_N[None, :] == tl.arange(0, BLOCK_M)[:, None], each_N[None, :], 0.0), axis=1)
    else:
        return tl.sum(tl.where(index_N[:, None] == tl.arange(0, BLOCK_M)[None, :], each_N[:, None], 0.0), axis=0)


@triton.jit
def unit_sum(index_N, scaled_N, f_ND, BLOCK_M: tl.constexpr):
    """Return what a block adds to the gradient of the unit centers: [M, D]."""
    # float16 has not the range of these numbers.
    top = tl.maximum(tl.max(tl.abs(scaled_N)), 1e-30) if f_ND.dtype == tl.float16 else 1.0
    return own_sum(index_N, scaled_N / top, f_ND, BLOCK_M) * top


@triton.jit
def unit_vectors(x_MD):
    """Vectors of length one, and one over their lengths before, negative where that is below eps."""
    square_M = tl.sum(x_MD * x_MD, axis=1)
    inverse_M = tl.rsqrt(tl.maximum(square_M, EPS_SQUARED))
    return x_MD * inverse_M[:, None], tl.where(square_M >= EPS_SQUARED, inverse_M, -inverse_M)


@triton.jit
def unit_gradient(grad_MD, unit_MD, inverse_M):
    """Return the gradient of `unit_vectors`; a vector shorter than eps has none of its length."""
    along_M = tl.where(inverse_M > 0, tl.sum(grad_MD * unit_MD, axis=1), 0.0)
    return (grad_MD - along_M[:, None] * unit_MD) * tl.abs(inverse_M)[:, None]


@triton.jit
def of_own(x_NM, index_N, BLOCK_M: tl.constexpr):
    """Each point's number in its center's column, [N]."""
    return tl.sum(tl.where(index_N[:, None] == tl.arange(0, BLOCK_M)[None, :], x_NM, 0.0), axis=1)


@triton.jit
def hand_out(x_MD, index_N, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr):
    """Return what each point's center has, [M, D] to [N, D], without leaving the chip."""
    if x_MD.shape[0] == 1:
        return tl.broadcast_to(x_MD, BLOCK_N, BLOCK_D)
    else:
        return tl.gather(x_MD, tl.broadcast_to(index_N[:, None], BLOCK_N, BLOCK_D), 0)


@triton.jit
def _row(x_MD, m: tl.constexpr, BLOCK_M: tl.constexpr):
    return tl.sum(tl.where((tl.arange(0, BLOCK_M) == m)[:, None], x_MD, 0.0), axis=0)


@triton.jit
def values_gradient(
    g_ND,
    v_ND,
    index_N,
    s_N,
    held_MD,
    grad_sum_MD,
    held_ND,
    grad_sum_ND,
    share_M,
    row_N,
    col_N,
    height,
    width,
    ROWS: tl.constexpr,
    COLS: tl.constexpr,
    COUNT: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """Return the gradients of a block's values, through their clusters and windows, [N, D'], and of their z, [N].

    Centers come as they are, [M, D'], and each point's own, [N, D']; what is not used is not compiled.
    """
    # Through what a point receives, what it gives, and the denominator: few centers are multiplied with all points.
    if BLOCK_M > 1 and BLOCK_M <= NARROW:
        grad_s_NM = dot(g_ND, tl.trans(held_MD)) + dot(v_ND, tl.trans(grad_sum_MD))
        if not COUNT:
            grad_s_NM -= tl.sum(held_MD * grad_sum_MD, axis=1)[None, :]
        grad_s_N = of_own(grad_s_NM, index_N, BLOCK_M)
    else:
        given_ND = v_ND.to(tl.float32) if COUNT else v_ND.to(tl.float32) - held_ND
        grad_s_N = tl.sum(g_ND.to(tl.float32) * held_ND + given_ND * grad_sum_ND, axis=1)
    if BLOCK_M <= NARROW:
        grad_v_ND = tl.zeros([BLOCK_N, BLOCK_D], tl.float32)
        for m in tl.static_range(ROWS * COLS):
            share = tl.sum(tl.where(tl.arange(0, BLOCK_M) == m, share_M, 0.0))
            member_N = is_member(m, row_N, col_N, height, width, ROWS, COLS)
            weight_N = tl.where(index_N == m, s_N, 0.0) + tl.where(member_N, share, 0.0)
            grad_v_ND += weight_N[:, None] * _row(grad_sum_MD, m, BLOCK_M)[None, :]
    else:
        member_NM = tl.trans(members(row_N, col_N, height, width, ROWS, COLS, BLOCK_M))
        grad_v_ND = count_dot(member_NM, grad_sum_MD * share_M[:, None])
        grad_v_ND += s_N[:, None] * grad_sum_ND
    return grad_v_ND, grad_s_N * s_N * (1.0 - s_N)


@triton.jit
def points_gradient(
    f_ND,
    index_N,
    grad_z_N,
    scale,
    unit_ND,
    grad_center_MD,
    share_M,
    row_N,
    col_N,
    height,
    width,
    ROWS: tl.constexpr,
    COLS: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """Return the gradient of a block's points, [N, D], and each point's cosine with its center ``unit_ND``, [N]."""
    inverse_N, counts_N = inverse_lengths(f_ND)
    wide_ND = f_ND.to(tl.float32)
    cosine_N = tl.sum(wide_ND * unit_ND, axis=1) * inverse_N
    scaled_N = scale * grad_z_N * inverse_N
    # A vector shorter than eps has no gradient of its length.
    along_N = tl.where(counts_N, scaled_N * cosine_N * inverse_N, 0.0)
    grad_f_ND = scaled_N[:, None] * unit_ND - along_N[:, None] * wide_ND
    pooled_MD = grad_center_MD * share_M[:, None]
    if BLOCK_M <= NARROW:
        for m in tl.static_range(ROWS * COLS):
            member_N = is_member(m, row_N, col_N, height, width, ROWS, COLS)
            grad_f_ND += tl.where(member_N, 1.0, 0.0)[:, None] * _row(pooled_MD, m, BLOCK_M)[None, :]
    else:
        member_NM = tl.trans(members(row_N, col_N, height, width, ROWS, COLS, BLOCK_M))
        grad_f_ND += count_dot(member_NM, pooled_MD)
    return grad_f_ND, cosine_N
