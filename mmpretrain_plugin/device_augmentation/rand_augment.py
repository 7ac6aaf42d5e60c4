"""RandAugment of a batch, as mmpretrain's ``RandAugment`` does it to an image.

Images that drew the same operation are changed together, each by its own magnitude: a few hundred small kernels for a
batch of any size, where a loop over images has that many for each dozen of images.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from mmpretrain.datasets import RandAugment
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as tv

from coc_core.errors import UserError, did_you_mean

_INTERPOLATIONS = ('nearest', 'bilinear', 'bicubic')
# Of blue, green and red, the order in which images are read.
_GRAY = (0.114, 0.587, 0.299)


class BatchRandAugment:
    """Changes each image by operations and magnitudes of its own.

    Args:
        interpolations: How turned, sheared and moved images are interpolated; each image draws one.
        **options: Arguments of mmpretrain's ``RandAugment``.

    Raises:
        UserError: An argument is wrong, or a policy has an operation that is unknown here or has no range of
            magnitudes.
    """

    def __init__(self, interpolations: Sequence[str] = ('bilinear', 'bicubic'), **options: Any) -> None:
        where = 'data_preprocessor.rand_augment'
        unknown = [name for name in interpolations if name not in _INTERPOLATIONS]
        if unknown or not interpolations:
            raise UserError(f'{where}.interpolations={interpolations!r} must be some of {", ".join(_INTERPOLATIONS)}.')
        try:
            self.options = RandAugment(**options)
        except (AssertionError, TypeError, KeyError) as error:
            raise UserError(f"{where} must have arguments of mmpretrain's RandAugment ({error}).") from error
        for policy in self.options.policies:
            name = policy['type']
            if name not in _OPERATIONS:
                raise UserError(f'{where} has no operation {name} for batches.{did_you_mean(name, _OPERATIONS)}')
            unknown = [key for key in policy if key not in _SETTINGS]
            if unknown:
                raise UserError(
                    f'{where} cannot set {unknown[0]} of {name}: give a magnitude_range, and how images are '
                    f'interpolated as {where}.interpolations.'
                )
        self.interpolations = tuple(interpolations)

    def __call__(self, images: Tensor) -> Tensor:
        """Return the changed batch.

        Args:
            images: uint8 [B, 3, H, W], blue first.
        """
        interpolation = torch.randint(len(self.interpolations), (len(images),))
        for _ in range(self.options.num_policies):
            operation, magnitude = self.draw(len(images))
            images = self.apply(images, operation, magnitude, interpolation)
        return images

    def draw(self, count: int) -> tuple[Tensor, Tensor]:
        """Draw an operation and its magnitude for each image.

        Returns:
            The operation's place among the policies, -1 for none, int64 [count]; float32 [count].
        """
        transforms = list(self.options)
        operation = torch.randint(len(transforms), (count,))
        level: Tensor = torch.full((count,), float(self.options.magnitude_level))
        if self.options.magnitude_std == 'inf':
            level = level * torch.rand(count)
        elif self.options.magnitude_std > 0:
            level = (level + self.options.magnitude_std * torch.randn(count)).clamp(0, self.options.total_level)
        first, last = torch.tensor([t.magnitude_range or (0.0, 0.0) for t in transforms])[operation].T
        magnitude = level / self.options.total_level * (last - first) + first
        negative = torch.rand(count) < torch.tensor([t.random_negative_prob for t in transforms])[operation]
        skipped = torch.rand(count) > torch.tensor([t.prob for t in transforms])[operation]
        return operation.masked_fill(skipped, -1), torch.where(negative, -magnitude, magnitude)

    def apply(self, images: Tensor, operation: Tensor, magnitude: Tensor, interpolation: Tensor) -> Tensor:
        """Change each image by its operation.

        Args:
            images: uint8 [B, 3, H, W].
            operation: Places among the policies, -1 for none: int64 [B], on the CPU.
            magnitude: float32 [B], on the CPU.
            interpolation: Places among the interpolations: int64 [B], on the CPU.
        """
        kinds = len(self.interpolations)
        warps = torch.tensor([policy['type'] in _WARPS for policy in self.options.policies] + [False])[operation]
        group = operation * kinds + interpolation * warps
        # The groups are known on the CPU: the device gets two tensors, and is never waited for.
        order = group.argsort(stable=True)
        numbers, sizes = group[order].unique_consecutive(return_counts=True)
        place = order.to(images.device, non_blocking=True)
        parts = images[place].split(sizes.tolist())
        sent = magnitude[order].to(images.device, non_blocking=True)
        magnitudes = sent[:, None, None, None].split(sizes.tolist())
        changed = [
            self._change(part, number, amount)
            for part, number, amount in zip(parts, numbers.tolist(), magnitudes, strict=True)
        ]
        return torch.empty_like(images).index_copy_(0, place, torch.cat(changed))

    def _change(self, images: Tensor, group: int, magnitude: Tensor) -> Tensor:
        if group < 0:
            return images
        transform = list(self.options)[group // len(self.interpolations)]
        name = type(transform).__name__
        if name in _WARPS:
            mode = self.interpolations[group % len(self.interpolations)]
            return warp(images, *_WARPS[name](transform, magnitude, *images.shape[-2:]), transform.pad_val, mode)
        return _TONES[name](images, magnitude)


def warp(images: Tensor, rows: Tensor, columns: Tensor, fill: float | Sequence[float], mode: str) -> Tensor:
    """Read each image at other places, and a color outside of it.

    Args:
        images: uint8 [B, C, H, W].
        rows: Where each pixel comes from, in pixels: [B, H, W], or what broadcasts to it.
        columns: The same.
        fill: The color outside.
        mode: How to interpolate between pixels.
    """
    count, _, height, width = images.shape
    grid = torch.stack(
        [
            (2 * columns / (width - 1) - 1).expand(count, height, width),
            (2 * rows / (height - 1) - 1).expand(count, height, width),
        ],
        dim=-1,
    )
    # What is read outside is 0; so the color is taken off before, and put on after.
    color = torch.as_tensor(fill, dtype=torch.float32).to(images.device, non_blocking=True).reshape(-1, 1, 1)
    moved = F.grid_sample(images - color, grid, mode=mode, padding_mode='zeros', align_corners=True)
    return _to_bytes((moved + color).round())


def _pixels(magnitude: Tensor, height: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the magnitudes [B, 1, 1], and the place of each pixel: rows [H, 1] and columns [W]."""
    device = magnitude.device
    rows = torch.arange(height, dtype=torch.float32, device=device)[:, None]
    return magnitude[:, 0], rows, torch.arange(width, dtype=torch.float32, device=device)


def _rotate(transform: Any, magnitude: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    angle, rows, columns = _pixels(magnitude, height, width)
    cos, sin = angle.deg2rad().cos(), angle.deg2rad().sin()
    y, x = rows - (height - 1) / 2, columns - (width - 1) / 2
    return cos * y - sin * x + (height - 1) / 2, sin * y + cos * x + (width - 1) / 2


def _shear(transform: Any, magnitude: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    share, rows, columns = _pixels(magnitude, height, width)
    if transform.direction == 'horizontal':
        return rows, columns - share * rows
    return rows - share * columns, columns


def _translate(transform: Any, magnitude: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    share, rows, columns = _pixels(magnitude, height, width)
    if transform.direction == 'horizontal':
        return rows, columns - share * width
    return rows - share * height, columns


def _to_bytes(images: Tensor) -> Tensor:
    return images.clamp(0, 255).to(torch.uint8)


def _gray(images: Tensor) -> Tensor:
    weights = torch.tensor(_GRAY).to(images.device, non_blocking=True).reshape(-1, 1, 1)
    return (images * weights).sum(1, keepdim=True).round()


def _blend(images: Tensor, other: Tensor, magnitude: Tensor) -> Tensor:
    return other + (1 + magnitude) * (images - other)


def _posterize(images: Tensor, magnitude: Tensor) -> Tensor:
    shift = 8 - magnitude.ceil().int()
    return (images.int() >> shift << shift).to(torch.uint8)


def _contrast(images: Tensor, magnitude: Tensor) -> Tensor:
    return _to_bytes(_blend(images, _gray(images).mean((2, 3), keepdim=True).round(), magnitude))


def _sharpness(images: Tensor, magnitude: Tensor) -> Tensor:
    kernel = torch.ones(3, 1, 3, 3, device=images.device)
    kernel[:, :, 1, 1] = 5
    smooth = F.conv2d(F.pad(images.float(), (1, 1, 1, 1), mode='reflect'), kernel / 13, groups=3).round()
    return _to_bytes(_blend(images, smooth, magnitude))


_WARPS: dict[str, Callable[[Any, Tensor, int, int], tuple[Tensor, Tensor]]] = {
    'Rotate': _rotate,
    'Shear': _shear,
    'Translate': _translate,
}
_TONES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    'AutoContrast': lambda images, magnitude: tv.autocontrast(images),
    'Equalize': lambda images, magnitude: tv.equalize(images),
    'Invert': lambda images, magnitude: 255 - images,
    'Posterize': _posterize,
    'Solarize': lambda images, magnitude: torch.where(images < magnitude, images, 255 - images),
    'SolarizeAdd': lambda images, magnitude: torch.where(images < 128, _to_bytes(images + magnitude), images),
    'ColorTransform': lambda images, magnitude: _to_bytes(_blend(images, _gray(images), magnitude).round()),
    'Contrast': _contrast,
    'Brightness': lambda images, magnitude: _to_bytes(_blend(images, images.new_zeros(()), magnitude)),
    'Sharpness': _sharpness,
}
_SETTINGS = (
    *('type', 'magnitude_range', 'magnitude_level', 'magnitude_std', 'total_level'),
    *('prob', 'random_negative_prob', 'direction', 'pad_val'),
)
_OPERATIONS = (*_WARPS, *_TONES)
