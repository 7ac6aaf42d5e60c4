"""The maps that published models cluster: derived from the variants and the names of their configs."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import NamedTuple

from coc_core.files import project_folder
from coc_core.ops.triton import plan
from coc_core.variants import VARIANTS, CoCConfig

IMAGE_SIZE = (224, 224)
# Of a folder of configs: height and width of its images, brought to a multiple of what models divide by.
DENSE_SIZES = {'detection': (800, 1344), 'segmentation': (512, 512)}
BATCH = 2


class Shape(NamedTuple):
    """A map of points and how it is clustered.

    Attributes:
        name: The first model and stage that has it.
        batch: Images.
        height: Rows of the map.
        width: Columns of the map.
        heads: Heads.
        dim: Channels of a head.
        center_grid: Centers along each side of a region.
        region_grid: Regions along each side of the map.
    """

    name: str
    batch: int
    height: int
    width: int
    heads: int
    dim: int
    center_grid: int
    region_grid: int

    @property
    def kernel(self) -> tuple[int, ...]:
        """What kernels are compiled for; of the sizes of a region they know whether one program handles it."""
        points = (self.height // self.region_grid) * (self.width // self.region_grid)
        is_whole = plan.is_whole(points, self.center_grid**2)
        return self.dim, self.center_grid, is_whole

    def __str__(self) -> str:
        size = 'x'.join(map(str, self[1:6]))
        return f'{self.name} ({size}, {self.center_grid**2} centers, {self.region_grid**2} regions)'


def published_shapes() -> list[Shape]:
    """Return each map of a published model once; before all others those that kernels are compiled for anew."""
    shapes: dict[tuple[object, ...], Shape] = {}
    first: dict[tuple[int, ...], Shape] = {}
    for shape in _all_shapes():
        shapes.setdefault(shape[1:], shape)
        first.setdefault(shape.kernel, shape)
    return sorted(shapes.values(), key=lambda shape: first[shape.kernel] != shape)


def _all_shapes() -> Iterator[Shape]:
    for name, config in VARIANTS.items():
        yield from _stages(name, config, IMAGE_SIZE, BATCH)
    for folder, size in DENSE_SIZES.items():
        for arch, centers in sorted(_dense_models(folder)):
            config = VARIANTS[arch].override(center_grid=math.isqrt(centers))
            yield from _stages(f'{arch}-{centers} {folder}', config, size, 1)


def _dense_models(folder: str) -> set[tuple[str, int]]:
    names = (path.name for path in (project_folder() / 'configs' / folder).glob('*_coc-*.py'))
    found = (re.search(r'_coc-([a-z]+)-(\d+)_', name) for name in names if 'digits' not in name)
    return {(f'coc_{each[1]}', int(each[2])) for each in found if each}


def _stages(name: str, config: CoCConfig, size: tuple[int, int], batch: int) -> Iterator[Shape]:
    each = zip(config.strides, config.heads, config.head_dim, config.center_grid, config.region_grid, strict=True)
    for stage, (stride, heads, dim, centers, regions) in enumerate(each, start=1):
        height, width = (-(-side // stride) for side in size)
        # The models pad their images.
        height, width = (-(-side // regions) * regions for side in (height, width))
        yield Shape(f'{name} stage {stage}', batch, height, width, heads, dim, centers, regions)
