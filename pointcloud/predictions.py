"""What becomes of the predictions of clouds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from coc_core.mm.prediction.predictions import Predictions
from pointcloud.pictures import draw_cloud


class CloudPredictions(Predictions):
    """The best classes of each cloud."""

    picture_ending = '.png'

    def columns(self, sample: Any) -> dict[str, Any]:
        """Return the best class, its score, and the first classes."""
        return self.top_classes(sample.pred_scores)

    def draw(self, image: NDArray[Any], sample: Any, path: Path) -> None:
        """Draw the points in the color of the class, under its name and score."""
        import matplotlib

        best = self.columns(sample)
        color = matplotlib.colormaps['tab20'](best['label'] % 20)
        draw_cloud(path, image, [color] * len(image), f'{best["class"]}, {best["score"]:.2f}')
