"""Transforms of clouds; randomness is NumPy's global one, which mmengine seeds in every worker."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from mmengine.structures import BaseDataElement
from numpy.typing import NDArray

from coc_core.errors import UserError
from pointcloud.registry import TRANSFORMS

Sample = dict[str, Any]


@TRANSFORMS.register_module()
class TakeFirstPoints:
    """Keeps the first points of a cloud.

    Args:
        num_points: How many.

    Raises:
        UserError: When called: the cloud has fewer.
    """

    def __init__(self, num_points: int) -> None:
        if num_points < 1:
            raise UserError(f'num_points={num_points} must be positive.')
        self.num_points = num_points

    def __call__(self, sample: Sample) -> Sample:
        """Points [P, 3] -> [num_points, 3]."""
        points = sample['points']
        if len(points) < self.num_points:
            raise UserError(
                f'the cloud has {len(points)} points, fewer than num_points={self.num_points}: lower that number.'
            )
        return {**sample, 'points': points[: self.num_points]}


def normalized(points: NDArray[Any]) -> NDArray[np.float32]:
    """Return a cloud [P, 3] as float32, the middle of its bounding box at the origin and its farthest point at 1.

    One whose points are all the same becomes zeros.
    """
    # In float32 a shape that lies far from the origin is lost.
    moved = points.astype(np.float64)
    moved -= (moved.max(axis=0) + moved.min(axis=0)) / 2
    radius = np.linalg.norm(moved, axis=1).max()
    cloud: NDArray[np.float32] = (moved / (radius or 1)).astype(np.float32)
    return cloud


@TRANSFORMS.register_module()
class NormalizePoints:
    """Moves a cloud to the origin and scales it to radius 1, so that place and unit of a scan do not matter."""

    def __call__(self, sample: Sample) -> Sample:
        """Points [P, 3] -> the same, moved and scaled, float32 in an array of their own (see `normalized`)."""
        return {**sample, 'points': normalized(sample['points'])}


@TRANSFORMS.register_module()
class RandomScaleShift:
    """Multiplies each axis by a random factor and adds a random offset to it, drawn uniformly.

    Args:
        scale: Lowest and highest factor.
        shift: Lowest and highest offset, in the unit of the coordinates.
    """

    def __init__(self, scale: tuple[float, float] = (2 / 3, 3 / 2), shift: tuple[float, float] = (-0.2, 0.2)) -> None:
        for name, (low, high) in (('scale', scale), ('shift', shift)):
            if low > high:
                raise UserError(f'{name}={(low, high)} must be lowest, highest.')
        self.scale = scale
        self.shift = shift

    def __call__(self, sample: Sample) -> Sample:
        """Points [P, 3] -> the same, moved, in an array of their own."""
        factors = np.random.uniform(*self.scale, size=3).astype(np.float32)
        offsets = np.random.uniform(*self.shift, size=3).astype(np.float32)
        return {**sample, 'points': sample['points'] * factors + offsets}


@TRANSFORMS.register_module()
class ShufflePoints:
    """Puts the points of a cloud in random order: farthest point sampling begins with the first."""

    def __call__(self, sample: Sample) -> Sample:
        """Points [P, 3] -> the same in another order, in an array of their own."""
        return {**sample, 'points': np.random.permutation(sample['points'])}


@TRANSFORMS.register_module()
class PackPoints:
    """Makes what a model takes: ``inputs`` (float32 [P, 3]) and ``data_samples`` with ``gt_label`` (int64 [1]).

    A cloud without a label, whose class is to be predicted, has no ``gt_label``.
    """

    def __call__(self, sample: Sample) -> Sample:
        """Return a sample's dict -> ``inputs`` and ``data_samples``."""
        # A tensor of its own: torch must not be handed the stored array, which may not be written to.
        inputs = torch.tensor(sample['points'], dtype=torch.float32)
        element = BaseDataElement(metainfo={'sample': sample['sample'], 'place': sample['place']})
        if 'gt_label' in sample:
            element.gt_label = torch.tensor([sample['gt_label']])
        return {'inputs': inputs, 'data_samples': element}
