"""The two places where Mask R-CNN under mixed precision meets mmcv's compiled operators."""

from __future__ import annotations

from mmdet.models.dense_heads import RPNHead
from mmdet.models.roi_heads.roi_extractors import SingleRoIExtractor
from mmdet.registry import MODELS
from torch import Tensor


@MODELS.register_module()
class Float32RoIExtractor(SingleRoIExtractor):  # type: ignore[misc]
    """mmdet's SingleRoIExtractor, pooling in float32 and NCHW whatever the maps' dtype and strides.

    mmcv's RoIAlign has no bfloat16 kernel, reads channels-last maps as if they were NCHW, and in float16 a box's
    coordinates beyond 1,024 are rounded to whole pixels.
    """

    def forward(self, feats: tuple[Tensor, ...], rois: Tensor, roi_scale_factor: float | None = None) -> Tensor:
        """Pool maps [B, C, H_i, W_i] and boxes [K, 5] (image index, x1, y1, x2, y2) -> float32 [K, C, size, size]."""
        return super().forward(tuple(feat.float().contiguous() for feat in feats), rois.float(), roi_scale_factor)


@MODELS.register_module()
class Float32RPNHead(RPNHead):  # type: ignore[misc]
    """mmdet's RPNHead, whose convolutions follow autocast and whose outputs are float32.

    mmcv's NMS on the CPU takes float32 alone, and scores of eight bits tie too often to be ranked.
    """

    def forward_single(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return a map [B, C, H, W] -> objectness [B, A, H, W] and box deltas [B, 4 A, H, W], float32."""
        objectness, deltas = super().forward_single(x)
        return objectness.float(), deltas.float()
