"""What is exported of a segmenter."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.functional import interpolate


class PixelLogits(nn.Module):
    """A segmenter as one function of images, as mmseg tests it where ``test_cfg.mode`` is ``'whole'``.

    Args:
        segmenter: mmseg's model, of one decoder.
    """

    def __init__(self, segmenter: nn.Module) -> None:
        super().__init__()
        self.segmenter = segmenter

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images [B, 3, H, W] -> logits [B, classes, H, W]."""
        logits = self.segmenter(images)
        align = self.segmenter.align_corners
        return interpolate(logits, size=images.shape[2:], mode='bilinear', align_corners=align)  # type: ignore[arg-type]
