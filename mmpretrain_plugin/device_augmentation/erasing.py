"""Random erasing of a batch, as mmpretrain's ``RandomErasing`` does it to an image."""

from __future__ import annotations

import math
from typing import Any

import torch
from mmpretrain.datasets import RandomErasing
from torch import Tensor

from coc_core.errors import UserError


class BatchErasing:
    """Fills a rectangle in each chosen image with noise or a color; each image has its own draws.

    The places are drawn on the CPU, so that the device is never waited for; the noise is drawn on the device.

    Args:
        **options: Arguments of mmpretrain's ``RandomErasing``, colors in the order of the channels that are read.

    Raises:
        UserError: An argument is wrong.
    """

    def __init__(self, **options: Any) -> None:
        for name in ('erase_prob', 'min_area_ratio', 'max_area_ratio'):
            value = options.get(name, 0.0)
            if not isinstance(value, float) or not 0 <= value <= 1:
                raise UserError(f'data_preprocessor.erasing.{name}={value!r} must be a float from 0.0 to 1.0.')
        try:
            self.options = RandomErasing(**options)
        except (AssertionError, TypeError) as error:
            raise UserError(
                f"data_preprocessor.erasing must have arguments of mmpretrain's RandomErasing ({error})."
            ) from error

    def __call__(self, images: Tensor) -> Tensor:
        """Return the batch with some images erased.

        Args:
            images: uint8 [B, C, H, W].
        """
        height, width = images.shape[-2:]
        erased = (torch.rand(len(images)) <= self.options.erase_prob).nonzero().flatten()
        if not len(erased):
            return images
        places = self.draw_places(len(erased), height, width).to(images.device, non_blocking=True)
        top, left, rows, columns = places.T[..., None]
        y = torch.arange(height, device=images.device)
        x = torch.arange(width, device=images.device)
        inside_y = (y >= top) & (y < top + rows)
        inside_x = (x >= left) & (x < left + columns)
        inside = inside_y[:, None, :, None] & inside_x[:, None, None, :]
        erased = erased.to(images.device, non_blocking=True)
        chosen = images[erased]
        return images.index_copy(0, erased, torch.where(inside, self.fill_like(chosen), chosen))

    def draw_places(self, count: int, height: int, width: int) -> Tensor:
        """Draw rectangles within an image: int64 [count, 4] of top, left, rows and columns."""
        low, high = (math.log(ratio) for ratio in self.options.aspect_range)
        aspect = torch.empty(count, dtype=torch.float64).uniform_(low, high).exp()
        area = torch.empty(count, dtype=torch.float64).uniform_(
            self.options.min_area_ratio, self.options.max_area_ratio
        )
        area *= height * width
        rows = (area * aspect).sqrt().round().clamp(max=height)
        columns = (area / aspect).sqrt().round().clamp(max=width)
        # As in mmpretrain, a rectangle never touches the last row or column unless it fills the image.
        top = (torch.rand(count, dtype=torch.float64) * (height - rows)).floor()
        left = (torch.rand(count, dtype=torch.float64) * (width - columns)).floor()
        return torch.stack([top, left, rows, columns], dim=1).long()

    def fill_like(self, images: Tensor) -> Tensor:
        """Return what rectangles are filled with, in the shape and dtype of the images or broadcast to it."""
        color, deviation = (
            torch.tensor(values or 0.0, dtype=torch.float32).to(images.device, non_blocking=True).reshape(-1, 1, 1)
            for values in (self.options.fill_color, self.options.fill_std)
        )
        if self.options.mode == 'const':
            fill = color
        elif self.options.fill_std is None:
            fill = 256 * torch.rand(images.shape, device=images.device)
        else:
            fill = color + deviation * torch.randn(images.shape, device=images.device)
        return fill.clamp(0, 255).to(images.dtype)
