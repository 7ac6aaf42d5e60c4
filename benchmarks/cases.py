"""What can be measured, and what the standard suite measures."""

from __future__ import annotations

import math
from dataclasses import dataclass

from coc_core.errors import UserError

PRECISIONS = ('fp32', 'bf16', 'fp16')
MODES = ('eval', 'train')
PEERS = ('poolformer_s12', 'resnet18', 'resnet50', 'pvt_v2_b1', 'convnext_nano')
# Shared memory of one multiprocessor of an H100 or H200.
ON_CHIP_BYTES = 227 * 1024


@dataclass(frozen=True)
class ModelCase:
    """Models that take the same images.

    Attributes:
        models: Context Clusters: a variant, or a variant and its number of centers in every stage (``coc_small-49``).
        size: Height and width of the images in pixels.
        batch_size: Images in a batch.
        dense: Measure backbones with four outputs instead of classifiers.
        peers: Models of timm beside them.
        mixers: Mixers of one's own, ``module:Class``: each of the models also with them for its clustering layer.
        rounds: How often each is timed.
        modes: ``'eval'``, ``'train'`` or both.
        compiled: Measure each Context Cluster compiled by ``torch.compile`` too, fused and in plain PyTorch.
        busy: Measure beside a busy process for each core.
    """

    models: tuple[str, ...]
    size: tuple[int, int]
    batch_size: int
    dense: bool = False
    peers: tuple[str, ...] = ()
    mixers: tuple[str, ...] = ()
    rounds: int = 7
    modes: tuple[str, ...] = MODES
    compiled: bool = False
    busy: bool = False

    @property
    def label(self) -> str:
        """What the rows of this case have in common."""
        kind = 'dense backbone' if self.dense else 'classifier'
        compiled = ', compiled or not' if self.compiled else ''
        busy = ', beside a busy process for each core' if self.busy else ''
        return f'{kind}, {self.batch_size} x {self.size[0]}x{self.size[1]}{compiled}{busy}'


@dataclass(frozen=True)
class OperatorCase:
    """The clustering operator on points and values [B, H, W, heads, D].

    Attributes:
        shape: B, H, W, heads, D.
        center_grid: Centers along each side of a region.
        region_grid: Regions along each side of the map (an int), or in rows and columns.
        rounds: As in `ModelCase`.
        modes: As in `ModelCase`; ``'train'`` is forward and backward.
    """

    shape: tuple[int, int, int, int, int]
    center_grid: int
    region_grid: int
    rounds: int = 7
    modes: tuple[str, ...] = MODES

    @property
    def label(self) -> str:
        """What the rows of this case have in common."""
        return (
            f'operator, {"x".join(map(str, self.shape))}, {self.center_grid**2} centers, {self.region_grid**2} regions'
        )

    def fits_on_chip(self, element_size: int) -> bool:
        """Return whether points and values of one region, of one head, fit into a multiprocessor's shared memory."""
        _, height, width, _, dim = self.shape
        return 2 * (height * width // self.region_grid**2) * dim * element_size <= ON_CHIP_BYTES


Case = ModelCase | OperatorCase


DENSE_SIZE = (800, 1344)


def suite(device: str) -> tuple[Case, ...]:
    """Return the cases that the docs compare, sized for a ``'cpu'`` or ``'cuda'``."""
    on_gpu = device == 'cuda'
    batch, dense_batch = (128, 4) if on_gpu else (8, 1)
    rounds = 20 if on_gpu else 7
    # The reference backbone takes 20 seconds a step on two cores.
    dense_rounds = 10 if on_gpu else 2
    # Compiling takes a minute for each on a GPU, and several on a CPU: last, so that all else is measured before.
    compiled = (ModelCase(('coc_tiny',), (224, 224), batch, rounds=rounds, compiled=True),) if on_gpu else ()
    # As laptops and shared nodes are.
    busy = () if on_gpu else (ModelCase(('coc_tiny', 'coc_small'), (224, 224), batch, modes=('train',), busy=True),)
    return (
        ModelCase(('coc_tiny', 'coc_small'), (224, 224), batch, peers=PEERS, rounds=rounds),
        *busy,
        ModelCase(('coc_small-4', 'coc_small-49'), DENSE_SIZE, dense_batch, dense=True, rounds=dense_rounds),
        # coc_tiny's first and third stage, coc_tiny_plain's first, coc_small-49's first, a point cloud's groups.
        OperatorCase((batch, 56, 56, 4, 24), 2, 8, rounds=rounds),
        OperatorCase((batch, 14, 14, 8, 24), 2, 2, rounds=rounds),
        OperatorCase((batch, 56, 56, 4, 24), 4, 1, rounds=rounds),
        OperatorCase((dense_batch, 200, 336, 4, 32), 7, 8, rounds=rounds),
        OperatorCase((batch * 256, 24, 1, 1, 64), 1, 1, rounds=rounds),
        *compiled,
    )


def split_name(name: str) -> tuple[str, int | None]:
    """Return variant and center grid of a name: ``coc_small-49`` has 7 x 7 centers in every region of every stage.

    Raises:
        UserError: The number of centers is no square.
    """
    arch, dash, centers = name.partition('-')
    if not dash:
        return arch, None
    if not centers.isdecimal() or int(centers) < 1 or math.isqrt(int(centers)) ** 2 != int(centers):
        raise UserError(f'{name}: what follows the dash is the number of centers, a square: 4, 25, 49.')
    return arch, math.isqrt(int(centers))
