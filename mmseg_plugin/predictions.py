"""What becomes of the predictions of segmenters."""

from __future__ import annotations

from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from coc_core.files import replacing
from coc_core.mm.prediction.predictions import Predictions


class PixelPredictions(Predictions):
    """The class of each pixel."""

    def columns(self, sample: Any) -> dict[str, Any]:
        """Return the classes with their numbers of pixels, the largest first."""
        labels, counts = np.unique(_labels(sample), return_counts=True)
        order = np.argsort(-counts, kind='stable')
        total = int(counts.sum())
        classes = [
            {'class': self.class_name(int(labels[i])), 'label': int(labels[i]), 'pixels': int(counts[i])} for i in order
        ]
        return {'classes': [{**entry, 'share': round(entry['pixels'] / total, 6)} for entry in classes]}

    def write_beside(self, sample: Any, out: Path, name: str) -> dict[str, Any]:
        """Write a label map with the numbers and colors of the data set's own."""
        path = f'labels/{name}.png'
        labels = _labels(sample)
        colors = [list(color) for color in self.meta.get('palette') or ()]
        if self.meta.get('reduce_zero_label'):
            # In its files, zero counts for nothing and the classes begin at 1.
            labels, colors = labels + 1, [[0, 0, 0], *colors]
        # Of more classes than 8 bits have, a picture has no palette.
        picture = Image.fromarray(labels.astype(np.uint8 if len(colors) <= 256 and labels.max() < 256 else np.uint16))
        if picture.mode == 'L' and colors:
            picture.putpalette(list(chain.from_iterable(colors)))
        with replacing(out / path) as beside:
            picture.save(beside)
        return {'label_map': path}

    def draw(self, image: NDArray[Any], sample: Any, path: Path) -> None:
        """Have mmseg lay the colors and names of classes over the image."""
        with replacing(path) as beside:
            self.visualizer.add_datasample(path.name, image, sample, draw_gt=False, out_file=str(beside))


def _labels(sample: Any) -> NDArray[np.int64]:
    labels: NDArray[np.int64] = sample.pred_sem_seg.data.squeeze(0).cpu().numpy().astype(np.int64)
    return labels
