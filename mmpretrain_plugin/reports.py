"""The report of a test of image classifiers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmpretrain.registry import METRICS
from torch import Tensor

from coc_core.mm.reports.classes import ClassReport
from coc_core.mm.reports.page import thumbnail

_LONGEST_SIDE = 160


@METRICS.register_module()
class ImageClassReport(ClassReport):
    """Of images."""

    def scores(self, sample: Mapping[str, Any]) -> Tensor:
        """Return the score of each class."""
        scores: Tensor = sample['pred_score']
        return scores

    def picture(self, sample: Mapping[str, Any], inputs: Any, place: int) -> bytes | None:
        """Return the whole image, small."""
        image = self.image_of(sample)
        return None if image is None else thumbnail(image, _LONGEST_SIDE)
