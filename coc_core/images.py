"""What happens to images before the stem: they are checked, padded, and given coordinates."""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from coc_core.errors import UserError
from coc_core.ops.context import traced_by


def check_images(images: Tensor, channels: int, smallest: int) -> None:
    """Raise ValueError unless images are floating [B, channels, H, W] with sides of at least ``smallest`` pixels."""
    if images.ndim != 4:
        raise UserError(f'images must be [B, {channels}, H, W]; got shape {list(images.shape)}.')
    if images.shape[1] != channels:
        raise UserError(
            f'images have {images.shape[1]} channels but the model was built with in_channels={channels}: '
            'convert them, or build the model with the right in_channels.'
        )
    if min(images.shape[-2:]) < smallest:
        raise UserError(
            f'images of {images.shape[-2]}x{images.shape[-1]} pixels are smaller than the stem: '
            f'both sides must be at least {smallest}.'
        )
    if not images.is_floating_point():
        raise UserError(f'images must be floating point, scaled and normalized; got {images.dtype}.')


def pad_to_multiple(images: Tensor, divisor: int) -> Tensor:
    """Zero-pad [B, C, H, W] at the bottom and right to multiples of ``divisor``; sizes that divide are untouched."""
    height, width = images.shape[-2:]
    bottom, right = -height % divisor, -width % divisor
    return F.pad(images, (0, right, 0, bottom)) if bottom or right else images


def append_coordinates(images: Tensor) -> Tensor:
    """Append each pixel's row / (H - 1) - 0.5 and column / (W - 1) - 0.5: [B, C, H, W] -> [B, C + 2, H, W]."""
    batch, _, height, width = images.shape
    stream = None if traced_by(images) else _stream(images.device)
    kind = height, width, images.dtype, images.device
    grid = _coordinates(*kind) if stream is None else _cached_coordinates(*kind, stream)
    return torch.cat([images, grid.expand(batch, 2, height, width)], dim=1)


def in_channels_last(images: Tensor) -> Tensor:
    """Lay [B, C, H, W] out in memory channels last, as the layers want it."""
    # torch.func.vmap knows no memory formats.
    return images if traced_by(images) == 'torch.func' else images.contiguous(memory_format=torch.channels_last)


def _coordinates(height: int, width: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    # Half precision cannot count the pixels of a large image.
    exact = torch.float64 if dtype == torch.float64 else torch.float32
    rows = torch.arange(height, device=device, dtype=exact) / (height - 1) - 0.5
    cols = torch.arange(width, device=device, dtype=exact) / (width - 1) - 0.5
    return torch.stack([rows[:, None].expand(-1, width), cols.expand(height, -1)]).to(dtype)


def _stream(device: torch.device) -> int | None:
    """Return the number of the stream that work on a device is queued in, 0 on a CPU; None while a graph is captured.

    What one stream makes another would read too early, and what a graph makes is there when it is replayed only.
    """
    if device.type != 'cuda':
        return 0
    return None if torch.cuda.is_current_stream_capturing() else torch.cuda.current_stream(device).cuda_stream


@lru_cache(maxsize=8)
def _cached_coordinates(height: int, width: int, dtype: torch.dtype, device: torch.device, stream: int) -> Tensor:
    # A tensor made in inference mode could not take part in training later.
    with torch.inference_mode(False):
        return _coordinates(height, width, dtype, device)
