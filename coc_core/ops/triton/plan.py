"""How the kernels are launched: what fits on the chip, block sizes, warps and chunks. Pure functions of sizes.

Every number was chosen by compiling the kernels for sm_90, not by timing them: half precision spills no registers at
the models' shapes, float32 some 15 of a thread's in two kernels, the backward of small regions and the assignment of
256 channels.
"""

from __future__ import annotations

from typing import NamedTuple

MAX_CENTERS = 64
MAX_DIM = 256
# The largest padded [N, D] tile, of which a program holds five or six in the backward: in float32 registers spill
# beyond, in half precision they do at twice the elements. And the largest padded [N, M] tile.
ON_CHIP_BYTES = 16384
ON_CHIP_ASSIGNMENTS = 4096
ON_CHIP_POINTS = 256
PROGRAMS_PER_PROCESSOR = 8


class Blocks(NamedTuple):
    """Sizes of a program."""

    points: int
    centers: int
    dim: int
    values_dim: int
    warps: int
    stages: int


class Chunks(NamedTuple):
    """How the points of a region are shared out: ``number`` programs of ``size`` points each, the last with fewer."""

    number: int
    size: int


def padded(size: int) -> int:
    """Return the power of two that holds ``size``; 16 at least, as matrix products on tensor cores need it."""
    return max(16, 1 << (size - 1).bit_length())


def fits_on_chip(points: int, centers: int, dim: int, values_dim: int, itemsize: int) -> bool:
    """Tell whether a region is handled by one program. ``points`` may be symbolic: it is only compared."""
    tile = ON_CHIP_BYTES // itemsize // padded(max(dim, values_dim))
    return points <= min(ON_CHIP_POINTS, tile, ON_CHIP_ASSIGNMENTS // padded(centers))


def on_chip_blocks(points: int, centers: int, dim: int, values_dim: int) -> Blocks:
    """Blocks that hold a whole region; 16 elements of a tile a thread keep the backward's tiles in registers."""
    block_n, block_m, block_d, block_dv = (padded(n) for n in (points, centers, dim, values_dim))
    tile = block_n * max(block_d, block_dv, block_m)
    return Blocks(block_n, block_m, block_d, block_dv, min(8, max(1, tile // 512)), 1)


def chunk_blocks(centers: int, dim: int, values_dim: int) -> Blocks:
    """Blocks of the loops over a chunk: a tile of 2,048 to 4,096 elements, beside what is held for the centers."""
    block_m, block_d, block_dv = (padded(n) for n in (centers, dim, values_dim))
    widest = max(block_d, block_dv)
    block_n = max(16, min(64, 4096 // widest))
    return Blocks(block_n, block_m, block_d, block_dv, 8 if block_m * widest >= 2048 else 4, 2)


def split(points: int, groups: int, block: int, processors: int) -> Chunks:
    """Share out a region's points so that all groups together keep every multiprocessor busy."""
    blocks = -(-points // block)
    wanted = max(1, PROGRAMS_PER_PROCESSOR * processors // max(groups, 1))
    size = -(-blocks // min(blocks, wanted)) * block
    return Chunks(-(-points // size), size)
