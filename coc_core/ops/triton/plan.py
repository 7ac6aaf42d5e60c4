"""How the kernels are launched: which form a region takes, block sizes, warps and chunks. Pure functions of sizes.

Every number was chosen by compiling the kernels and counting instructions, registers and spills, not by timing them.
"""

from __future__ import annotations

from typing import NamedTuple

MAX_CENTERS = 64
MAX_DIM = 256
# Of the centers of a region together, each padded to powers of two: what they hold has to fit into shared memory.
MAX_HELD = 4096
# Up to here products are left to FMA in float32, as padding for tensor cores would cost more.
NARROW = 8
# Larger regions are cut into chunks, which keep a GPU busy where groups are few.
WHOLE_POINTS = 512
WHOLE_ASSIGNMENTS = 8192
# Of a program's tiles of points and of centers, by bytes of an element: more would not fit in the registers.
ELEMENTS_PER_WARP = {2: 1024, 4: 768}
MAX_WARPS = 8
# Of a thread, where few narrow centers in half precision need hardly more: 16 warps share a multiprocessor then. The
# compiler is told: of itself it takes up to 142, more or less from one architecture to another.
REGISTERS = 128
PROGRAMS_PER_PROCESSOR = 8
# The kernels find a point's row by a product in float32.
MAX_POINTS = 2**20
# Of the norm: an image's chunks are joined in one tile; a program's tiles, in elements, and its warps.
NORM_CHUNKS = 64
NORM_TILE = 4096
NORM_WARPS = 4
# Of the MLP, whose hidden channels pass by in blocks: positions of a program and its warps, elements of a block of
# weights, and the widest map that the registers hold.
MLP_ROWS = 128
MLP_WARPS = 8
MLP_TILE = 2048
MLP_CHANNELS = 128


class Blocks(NamedTuple):
    """Sizes of a program; the last kernel of the backward, which holds the most, takes ``few_points`` at a time."""

    points: int
    few_points: int
    centers: int
    dim: int
    values_dim: int
    warps: int
    registers: int | None


class Chunks(NamedTuple):
    """How the points of a region are shared out: ``number`` programs of ``size`` points each, the last with fewer."""

    number: int
    size: int


def padded(size: int, least: int = 1) -> int:
    """Return the power of two that holds ``size`` and ``least``."""
    return max(least, 1 << (size - 1).bit_length())


def held(centers: int, dim: int) -> int:
    """Return how many channels the centers of a region have together, padded."""
    return padded(centers) * padded(dim, 16)


def is_whole(points: int, centers: int) -> bool:
    """Tell whether a region is handled by one program. ``points`` may be symbolic: it is only compared."""
    return points <= min(WHOLE_POINTS, WHOLE_ASSIGNMENTS // padded(centers))


def blocks_of(centers: int, dim: int, values_dim: int, itemsize: int) -> Blocks:
    """Return the blocks of all kernels; matrix products sum over 16 points or channels at least.

    Chosen so that at most 64 bytes spill. ``registers`` is the most that a thread may hold, ``None`` for no limit.
    """
    block_m, block_d, block_dv = padded(centers), padded(dim, 16), padded(values_dim, 16)
    widest, half, narrow = max(block_d, block_dv), itemsize == 2, block_m <= NARROW
    large = 32 if block_m < 32 else 64
    block_n = large if widest <= 32 and (half or narrow) else 16
    few = 16 if half and narrow else block_n
    warps = max(1, (block_n + block_m) * widest // ELEMENTS_PER_WARP[itemsize])
    # A power of two.
    warps = 1 << (warps.bit_length() - 1)
    registers = REGISTERS if half and narrow and widest <= 32 else None
    return Blocks(block_n, few, block_m, block_d, block_dv, min(MAX_WARPS, warps), registers)


def shared_bytes(centers: int, dim: int, values_dim: int, itemsize: int) -> int:
    """Return more shared memory than a program of any kernel takes: centers in three parts each, and two tiles."""
    blocks = blocks_of(centers, dim, values_dim, itemsize)
    widest = max(blocks.dim, blocks.values_dim)
    return 26 * blocks.centers * widest + 2 * blocks.points * widest * itemsize + 1024


def split(points: int, groups: int, block: int, processors: int) -> Chunks:
    """Share out a region's points so that all groups together keep every multiprocessor busy."""
    blocks = -(-points // block)
    wanted = max(1, PROGRAMS_PER_PROCESSOR * processors // max(groups, 1))
    size = -(-blocks // min(blocks, wanted)) * block
    return Chunks(-(-points // size), size)


def norm_blocks(channels: int) -> tuple[int, int]:
    """Return how many positions and how many channels of a map a program of the norm takes at a time."""
    block_c = 64 if channels % 64 == 0 else 32
    return NORM_TILE // block_c, block_c


def norm_chunks(images: int, points: int, block: int, processors: int) -> int:
    """Return into how many chunks an image is cut, of a block or more each, so that all together keep a GPU busy."""
    wanted = -(-PROGRAMS_PER_PROCESSOR * processors // max(images, 1))
    return max(1, min(wanted, -(-points // block), NORM_CHUNKS))


def mlp_blocks(channels: int) -> tuple[int, int, int]:
    """Return how many positions, hidden channels and channels of a map a program of the MLP has at a time."""
    block_c = padded(channels, 16)
    return MLP_ROWS, MLP_TILE // block_c, block_c
