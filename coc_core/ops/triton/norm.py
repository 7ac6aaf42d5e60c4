"""The kernels of the norm: statistics of chunks of an image, which are joined, and the map in one more pass.

An image has ``points`` positions of ``C`` channels, adjacent in memory; a program handles a chunk of the positions.
Deviations are taken from the mean of the first few thousand numbers before they are squared: few digits cancel.
"""

import triton
import triton.language as tl

# As in `coc_core.ops.triton.maps`, a kernel is compiled once for all sizes of a map.
_SIZES = ['points', 'chunks']


@triton.jit
def _whereabouts(points, chunks):
    """Return the image of a program, its chunk's first position, and how many a chunk has."""
    program = tl.program_id(0)
    size = tl.cdiv(points, chunks)
    return (program // chunks).to(tl.int64), (program % chunks) * size, size


@triton.jit(do_not_specialize=_SIZES)
def norm_statistics(x_ptr, partial_ptr, points, chunks, C: tl.constexpr, BLOCK: tl.constexpr):
    """Write what deviations are taken from, and sums of deviations and of their squares, float32 [programs, 3]."""
    image, start, size = _whereabouts(points, chunks)
    x_ptr += image * points * C
    place = tl.arange(0, BLOCK)
    near = tl.load(x_ptr + place, mask=place < points * C, other=0).to(tl.float32)
    base = tl.sum(near) / tl.minimum(BLOCK, points * C)
    end = tl.minimum(start + size, points) * C
    deviations = tl.zeros((BLOCK,), tl.float32)
    squares = tl.zeros((BLOCK,), tl.float32)
    for first in range(start * C, end, BLOCK):
        x = tl.load(x_ptr + first + place, mask=first + place < end, other=0).to(tl.float32)
        deviation = tl.where(first + place < end, x - base, 0.0)
        deviations += deviation
        squares += deviation * deviation
    partial_ptr += 3 * tl.program_id(0)
    tl.store(partial_ptr, base)
    tl.store(partial_ptr + 1, tl.sum(deviations))
    tl.store(partial_ptr + 2, tl.sum(squares))


@triton.jit
def _join(partial_ptr, image, chunks, numbers, eps, CHUNKS: tl.constexpr):
    """Return an image's base, the mean of the deviations from it, and the inverse of the standard deviation."""
    chunk = tl.arange(0, CHUNKS)
    partial_ptr += 3 * image * chunks
    base = tl.load(partial_ptr)
    mean = tl.sum(tl.load(partial_ptr + 3 * chunk + 1, mask=chunk < chunks, other=0.0)) / numbers
    square = tl.sum(tl.load(partial_ptr + 3 * chunk + 2, mask=chunk < chunks, other=0.0)) / numbers
    return base, mean, tl.rsqrt(square - mean * mean + eps)


@triton.jit(do_not_specialize=_SIZES)
def norm_apply(
    x_ptr, weight_ptr, bias_ptr, partial_ptr, out_ptr, statistics_ptr, points, chunks, eps,
    C: tl.constexpr, CHUNKS: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Write the normalized map, and each image's statistics, float32 [B, 3]."""
    image, start, size = _whereabouts(points, chunks)
    base, mean, inverse = _join(partial_ptr, image, chunks, points * C, eps, CHUNKS)
    if start == 0:
        tl.store(statistics_ptr + 3 * image, base)
        tl.store(statistics_ptr + 3 * image + 1, mean)
        tl.store(statistics_ptr + 3 * image + 2, inverse)
    x_ptr += image * points * C
    out_ptr += image * points * C
    end = tl.minimum(start + size, points)
    for first_channel in range(0, C, BLOCK_C):
        channel = first_channel + tl.arange(0, BLOCK_C)
        weight = tl.load(weight_ptr + channel, mask=channel < C, other=0).to(tl.float32) * inverse
        bias = tl.load(bias_ptr + channel, mask=channel < C, other=0).to(tl.float32)
        for first in range(start, end, BLOCK_N):
            position = first + tl.arange(0, BLOCK_N)
            place = position[:, None] * C + channel[None, :]
            inside = (position < end)[:, None] & (channel < C)[None, :]
            x = tl.load(x_ptr + place, mask=inside, other=0).to(tl.float32)
            y = (x - base - mean) * weight[None, :] + bias[None, :]
            tl.store(out_ptr + place, y.to(out_ptr.dtype.element_ty), mask=inside)


@triton.jit
def _statistics(statistics_ptr, image):
    statistics_ptr += 3 * image
    return tl.load(statistics_ptr), tl.load(statistics_ptr + 1), tl.load(statistics_ptr + 2)


@triton.jit(do_not_specialize=_SIZES)
def norm_gradient_sums(
    grad_ptr, x_ptr, statistics_ptr, partial_ptr, points, chunks,
    C: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Write a chunk's sums of gradient and of gradient times normalized value, float32 [programs, 2, C]."""
    image, start, size = _whereabouts(points, chunks)
    base, mean, inverse = _statistics(statistics_ptr, image)
    x_ptr += image * points * C
    grad_ptr += image * points * C
    partial_ptr += tl.program_id(0).to(tl.int64) * 2 * C
    end = tl.minimum(start + size, points)
    for first_channel in range(0, C, BLOCK_C):
        channel = first_channel + tl.arange(0, BLOCK_C)
        of_grad = tl.zeros((BLOCK_C,), tl.float32)
        of_product = tl.zeros((BLOCK_C,), tl.float32)
        for first in range(start, end, BLOCK_N):
            position = first + tl.arange(0, BLOCK_N)
            place = position[:, None] * C + channel[None, :]
            inside = (position < end)[:, None] & (channel < C)[None, :]
            grad = tl.load(grad_ptr + place, mask=inside, other=0).to(tl.float32)
            x = tl.load(x_ptr + place, mask=inside, other=0).to(tl.float32)
            of_grad += tl.sum(grad, axis=0)
            # Outside of the map the value is not zero but minus the mean: the gradient is.
            of_product += tl.sum(grad * ((x - base - mean) * inverse), axis=0)
        tl.store(partial_ptr + channel, of_grad, mask=channel < C)
        tl.store(partial_ptr + C + channel, of_product, mask=channel < C)


@triton.jit(do_not_specialize=_SIZES)
def norm_gradient(
    grad_ptr, x_ptr, weight_ptr, statistics_ptr, means_ptr, grad_x_ptr, points, chunks,
    C: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Write the gradient of the map; ``means``, float32 [B, 2], are those of the weighted sums over an image."""
    image, start, size = _whereabouts(points, chunks)
    base, mean, inverse = _statistics(statistics_ptr, image)
    mean_grad, mean_product = tl.load(means_ptr + 2 * image), tl.load(means_ptr + 2 * image + 1)
    x_ptr += image * points * C
    grad_ptr += image * points * C
    grad_x_ptr += image * points * C
    end = tl.minimum(start + size, points)
    for first_channel in range(0, C, BLOCK_C):
        channel = first_channel + tl.arange(0, BLOCK_C)
        weight = tl.load(weight_ptr + channel, mask=channel < C, other=0).to(tl.float32)
        for first in range(start, end, BLOCK_N):
            position = first + tl.arange(0, BLOCK_N)
            place = position[:, None] * C + channel[None, :]
            inside = (position < end)[:, None] & (channel < C)[None, :]
            grad = tl.load(grad_ptr + place, mask=inside, other=0).to(tl.float32)
            x = tl.load(x_ptr + place, mask=inside, other=0).to(tl.float32)
            own = grad * weight[None, :] - mean_grad - (x - base - mean) * inverse * mean_product
            tl.store(grad_x_ptr + place, (inverse * own).to(grad_x_ptr.dtype.element_ty), mask=inside)
