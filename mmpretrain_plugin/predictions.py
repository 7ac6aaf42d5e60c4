"""What becomes of the predictions of classifiers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from coc_core.files import replacing
from coc_core.mm.prediction.predictions import Predictions

# Pixels of the shorter side that a picture has at least, so that its text can be read.
_SHORTEST_SIDE = 224


class ClassPredictions(Predictions):
    """The best classes of each image."""

    def columns(self, sample: Any) -> dict[str, Any]:
        """Return the best class, its score, and the first classes."""
        return self.top_classes(sample.pred_score)

    def draw(self, image: NDArray[Any], sample: Any, path: Path) -> None:
        """Have mmpretrain write class and score on the image."""
        factor = max(1.0, _SHORTEST_SIDE / min(image.shape[:2]))
        with replacing(path) as beside:
            self.visualizer.visualize_cls(image, sample, draw_gt=False, rescale_factor=factor, out_file=str(beside))
