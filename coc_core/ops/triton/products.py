"""Products of float32 accuracy on tensor cores, which multiply half precision, and sum in float32.

A float32 matrix is taken apart into a sum of matrices in half precision. float32 times float32 is left to FMA where
one side of the result is narrow, as padding for tensor cores would cost more, else to three products in TF32.
"""

import triton
import triton.language as tl

from coc_core.ops.triton import plan
from coc_core.ops.triton.maps import INTERPRETED

NARROW = tl.constexpr(plan.NARROW)


@triton.jit
def half_dot(x, y):
    """Return the float32 product of two matrices in half precision."""
    if INTERPRETED:
        return tl.dot(x.to(tl.float32), y.to(tl.float32))
    return tl.dot(x, y)


@triton.jit
def _split(x, dtype: tl.constexpr):
    """Return a float32 tensor as two in half precision and a rest: their sum has 22 bits in float16, 16 in bfloat16.

    bfloat16's are cut off, not rounded, which takes fewer instructions; what is left fits into a third one either way.
    """
    if dtype == tl.bfloat16:
        high = _cut(x)
        low = _cut(x - high)
        return high.to(dtype), low.to(dtype), x - high - low
    else:
        high = x.to(dtype)
        rest = x - high.to(tl.float32)
        low = rest.to(dtype)
        return high, low, rest - low.to(tl.float32)


@triton.jit
def _cut(x):
    """Return a float32 tensor without the lower bits, which bfloat16 does not have."""
    return (x.to(tl.int32, bitcast=True) & -65536).to(tl.float32, bitcast=True)


@triton.jit
def dot(x, y):
    """Return the product of two matrices, of which at most one is in half precision, as exact as float32 is.

    Beside a float16 matrix the other has to be of its range: to bfloat16, of 8 bits, a third part is added.
    """
    if y.dtype == tl.float32 and x.dtype == tl.float32:
        if x.shape[0] <= NARROW or y.shape[1] <= NARROW:
            return tl.dot(x, y, input_precision='ieee')
        else:
            return tl.dot(x, y, input_precision='tf32x3')
    elif y.dtype == tl.float32:
        high, low, rest = _split(y, x.dtype)
        total = half_dot(x, low) + half_dot(x, high)
        return total + half_dot(x, rest.to(x.dtype)) if x.dtype == tl.bfloat16 else total
    else:
        high, low, rest = _split(x, y.dtype)
        total = half_dot(low, y) + half_dot(high, y)
        return total + half_dot(rest.to(y.dtype), y) if y.dtype == tl.bfloat16 else total


@triton.jit
def count_dot(member, y):
    """Return the product with a matrix of zeros and ones, which every type holds."""
    # By way of float32: the interpreter takes an integer for the bits of a bfloat16.
    ones = member.to(tl.float32)
    if y.dtype == tl.float32:
        if ones.shape[0] <= NARROW:
            return tl.dot(ones, y, input_precision='ieee')
        else:
            high, low, rest = _split(y, tl.bfloat16)
            half = ones.to(tl.bfloat16)
            return half_dot(half, rest.to(tl.bfloat16)) + half_dot(half, low) + half_dot(half, high)
    else:
        return half_dot(ones.to(y.dtype), y)
