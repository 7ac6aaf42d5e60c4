"""The report of a test of cloud classifiers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from torch import Tensor

from coc_core.mm.reports.classes import ClassReport
from coc_core.mm.reports.page import thumbnail
from coc_core.visualization.files import read_image
from pointcloud.pictures import draw_cloud
from pointcloud.registry import METRICS

_LONGEST_SIDE = 240


@METRICS.register_module()
class CloudReport(ClassReport):
    """Of clouds."""

    def scores(self, sample: Mapping[str, Any]) -> Tensor:
        """Return the score of each class."""
        scores: Tensor = sample['pred_scores']
        return scores

    def picture(self, sample: Mapping[str, Any], inputs: Any, place: int) -> bytes | None:
        """Draw the points that the model got."""
        # A batch is a tensor or a list of clouds; with augmented copies there is one for each copy.
        batch = inputs if getattr(inputs[0], 'ndim', 0) == 2 else inputs[0]
        points = batch[place].cpu().numpy()
        with TemporaryDirectory() as folder:
            path = Path(folder) / 'cloud.png'
            draw_cloud(path, points, points[:, 1], '')
            return thumbnail(read_image(path), _LONGEST_SIDE)
