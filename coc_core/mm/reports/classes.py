"""The report of a test of classifiers."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from coc_core.errors import UserError
from coc_core.mm.reports.metric import Record, ReportMetric, percent
from coc_core.mm.reports.page import Case, Page, matrix_picture


class ClassReport(ReportMetric):
    """Of one class for each sample: which are taken for which, and the mistakes that the model is surest of."""

    truth = 'gt_label'

    @abstractmethod
    def scores(self, sample: Mapping[str, Any]) -> Tensor:
        """Return the score of each class, [classes]."""

    @abstractmethod
    def picture(self, sample: Mapping[str, Any], inputs: Any, place: int) -> bytes | None:
        """Return a picture of a sample; None where there is nothing to show."""

    def record(self, sample: Mapping[str, Any]) -> Record:
        """Keep label, prediction and the number of classes."""
        label, scores = sample['gt_label'], self.scores(sample)
        if label.numel() != 1:
            raise UserError('--report is for one class of each sample, and a sample of this test data has several.')
        best = int(scores.argmax())
        wrong = best != int(label)
        return Record((int(label), best, len(scores)), float(scores[best]) if wrong else None)

    def case(self, record: Record, sample: Mapping[str, Any], inputs: Any, place: int) -> Case:
        """Say what it is and for what it is taken, and how sure the model is of either."""
        label, best, count = record.facts
        scores = self.scores(sample)
        names = self._names(count)
        lines = [
            f'{names[best]} ({float(scores[best]):.2f}) in the place of {names[label]} ({float(scores[label]):.2f})'
        ]
        if 'img_path' in sample:
            lines.append(str(sample['img_path']))
        return Case(tuple(lines), self.picture(sample, inputs, place))

    def page(self, facts: Sequence[Any], cases: Sequence[Case]) -> Page:
        """Count mistakes by classes."""
        from sklearn.metrics import confusion_matrix

        labels, predictions, counts = zip(*facts, strict=True)
        count = counts[0]
        names = self._names(count)
        matrix = confusion_matrix(labels, predictions, labels=range(count))
        totals, right = matrix.sum(axis=1), matrix.diagonal()
        shares = right / np.maximum(totals, 1)
        rows = []
        for i in sorted(range(count), key=lambda i: (totals[i] == 0, shares[i], names[i])):
            others = np.where(np.arange(count) == i, 0, matrix[i])
            taken = f'{names[int(others.argmax())]} ({others.max()})' if others.max() else ''
            rows.append([names[i], str(totals[i]), percent(right[i], totals[i]), taken])
        wrong = len(labels) - int(right.sum())
        mean = float(shares[totals > 0].mean())
        return Page(
            title=self.title,
            summary=[
                f'{len(labels)} samples, {wrong} of them wrong: accuracy {percent(right.sum(), len(labels))} %, '
                f'mean of the classes {100 * mean:.1f} %.'
            ],
            header=['class', 'samples', 'accuracy, %', 'most often taken for'],
            rows=rows,
            matrix=matrix_picture(matrix, names),
            cases_title='Mistakes that the model is surest of',
            cases=cases,
        )

    def _names(self, count: int) -> Sequence[str]:
        """Return the names of the classes; those of another number of classes are of something else."""
        return self.classes if len(self.classes) == count else [f'class {i}' for i in range(count)]
