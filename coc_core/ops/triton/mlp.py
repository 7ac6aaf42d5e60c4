"""The kernel of the MLP's forward: a block of positions stays in registers while all hidden channels pass by.

The hidden map exists for a block of positions and of hidden channels at a time, and never leaves the chip. It is in
float32 until GELU has been applied.
"""

import triton
import triton.language as tl

from coc_core.ops.triton.products import half_dot


@triton.jit
def gelu(x):
    """Return exact GELU of float32, off by less than 6e-6 of itself where x > -6, and by 6e-9 below.

    That is max(x, 0) - t * Phi(-t) for t = |x|, where log2(Phi(-t)) is very nearly a polynomial: no digits cancel, as
    those of 1 + erf do, at half the instructions.
    """
    t = tl.minimum(tl.abs(x), 6.0)
    log = -1.8348113144384115e-06 * t + 6.159828626550734e-05
    log = log * t - 0.0009305247222073376
    log = log * t + 0.00850789062678814
    log = log * t - 0.05396006628870964
    log = log * t - 0.4584643840789795
    log = log * t - 1.1512510776519775
    log = log * t - 0.9999952912330627
    return tl.maximum(x, 0.0, propagate_nan=tl.PropagateNan.ALL) - t * tl.exp2(log)


@triton.jit(do_not_specialize=['rows'])
def mlp_forward(
    x_ptr, weight1_ptr, bias1_ptr, weight2_ptr, bias2_ptr, out_ptr, rows,
    C: tl.constexpr, E: tl.constexpr, OUT: tl.constexpr,
    BLOCK_P: tl.constexpr, BLOCK_E: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Write fc2(gelu(fc1(x))) of the positions of a program; weights as of ``nn.Linear``, [E, C] and [OUT, E]."""
    first = tl.program_id(0).to(tl.int64) * BLOCK_P
    position = tl.arange(0, BLOCK_P)
    there = position < rows - first
    channel = tl.arange(0, BLOCK_C)
    inside = there[:, None] & (channel < C)[None, :]
    x = tl.load(x_ptr + first * C + position[:, None] * C + channel[None, :], mask=inside, other=0)
    out = tl.zeros((BLOCK_P, BLOCK_C), tl.float32)
    for start in range(0, E, BLOCK_E):
        unit = start + tl.arange(0, BLOCK_E)
        real = unit < E
        place = unit[:, None] * C + channel[None, :]
        weight1 = tl.load(weight1_ptr + place, mask=real[:, None] & (channel < C)[None, :], other=0)
        hidden = half_dot(x, tl.trans(weight1))
        hidden += tl.load(bias1_ptr + unit, mask=real, other=0).to(tl.float32)[None, :]
        place = channel[:, None] * E + unit[None, :]
        weight2 = tl.load(weight2_ptr + place, mask=(channel < OUT)[:, None] & real[None, :], other=0)
        out += half_dot(gelu(hidden).to(x.dtype), tl.trans(weight2))
    out += tl.load(bias2_ptr + channel, mask=channel < OUT, other=0).to(tl.float32)[None, :]
    inside = there[:, None] & (channel < OUT)[None, :]
    place = first * OUT + position[:, None] * OUT + channel[None, :]
    tl.store(out_ptr + place, out.to(out_ptr.dtype.element_ty), mask=inside)
