"""The report of a test of segmenters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from mmseg.registry import METRICS
from numpy.typing import NDArray

from coc_core.mm.reports.metric import Record, ReportMetric, percent
from coc_core.mm.reports.page import Case, Page, matrix_picture, thumbnail
from coc_core.visualization.painting import resize

_LONGEST_SIDE = 900
_IGNORED = 255
# How strong colors are over the image.
_STRENGTH = 0.6


@METRICS.register_module()
class PixelReport(ReportMetric):
    """Of a class for each pixel: which are taken for which, and the images of the least mean IoU."""

    truth = 'gt_sem_seg'

    def record(self, sample: Mapping[str, Any]) -> Record:
        """Keep how often which class is taken for which; where nothing is wrong, the image is none of the worst."""
        truth, found = _labels(sample, 'gt_sem_seg'), _labels(sample, 'pred_sem_seg')
        count = len(self.classes)
        counted = truth != _IGNORED
        # Of 150 classes an image has a few, and a data set thousands of images.
        pairs, pixels = np.unique(truth[counted].astype(np.int64) * count + found[counted], return_counts=True)
        ious = _ious(_matrix([(pairs, pixels)], count))
        return Record((pairs, pixels), None if not len(pairs) or np.nanmin(ious) == 1 else float(-np.nanmean(ious)))

    def case(self, record: Record, sample: Mapping[str, Any], inputs: Any, place: int) -> Case:
        """Show image, truth and prediction side by side."""
        ious = _ious(_matrix([record.facts], len(self.classes)))
        worst = int(np.nanargmin(ious))
        lines = [f'mean IoU {100 * np.nanmean(ious):.1f}; worst class {self.classes[worst]} ({100 * ious[worst]:.1f})']
        image = self.image_of(sample)
        if image is None:
            return Case(tuple(lines))
        palette = np.array(self._palette())
        parts = [image]
        for key in ('gt_sem_seg', 'pred_sem_seg'):
            labels = _labels(sample, key)
            shown = resize(image, labels.shape)
            known = labels < len(palette)
            colors = palette[np.where(known, labels, 0)]
            mixed = ((1 - _STRENGTH) * shown + _STRENGTH * colors).astype(np.uint8)
            parts.append(resize(np.where(known[..., None], mixed, shown), image.shape[:2]))
        return Case((*lines, str(sample['img_path'])), thumbnail(np.concatenate(parts, axis=1), _LONGEST_SIDE, 600))

    def _palette(self) -> Sequence[Sequence[int]]:
        return (self.dataset_meta or {}).get('palette') or _gray(len(self.classes))

    def page(self, facts: Sequence[Any], cases: Sequence[Case]) -> Page:
        """Count pixels by classes."""
        names = self.classes
        matrix = _matrix(facts, len(names))
        ious, totals, right = _ious(matrix), matrix.sum(axis=1), matrix.diagonal()
        order, palette = np.argsort(ious), self._palette()
        rows = [
            [names[i], percent(totals[i], totals.sum()), '-' if np.isnan(ious[i]) else f'{100 * ious[i]:.1f}',
             percent(right[i], totals[i])]
            for i in order
        ]  # fmt: skip
        return Page(
            title=self.title,
            summary=[
                f'{len(facts)} images: mIoU {100 * np.nanmean(ious):.1f} %, '
                f'right are {percent(right.sum(), totals.sum())} % of the pixels.'
            ],
            header=['class', 'share of the pixels, %', 'IoU, %', 'accuracy, %'],
            rows=rows,
            matrix=matrix_picture(matrix, names),
            cases_title='Images of the least mean IoU: image, truth, prediction',
            cases=cases,
            colors=[palette[i] for i in order],
        )


def _labels(sample: Mapping[str, Any], key: str) -> NDArray[Any]:
    labels: NDArray[Any] = sample[key]['data'].squeeze(0).cpu().numpy()
    return labels


def _matrix(facts: Sequence[tuple[NDArray[Any], NDArray[Any]]], count: int) -> NDArray[np.int64]:
    matrix = np.zeros(count * count, np.int64)
    for pairs, pixels in facts:
        matrix[pairs] += pixels
    return matrix.reshape(count, count)


def _ious(matrix: NDArray[np.int64]) -> NDArray[Any]:
    """Return the IoU of each class; NaN for those that neither truth nor prediction has."""
    right = matrix.diagonal()
    union = matrix.sum(axis=0) + matrix.sum(axis=1) - right
    return np.where(union > 0, right / np.maximum(union, 1), np.nan)


def _gray(count: int) -> list[list[int]]:
    return [[round(255 * i / max(count - 1, 1))] * 3 for i in range(count)]
