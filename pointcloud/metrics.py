"""How good a point-cloud classifier is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log
from rich.console import Console
from rich.table import Table

from pointcloud.registry import METRICS


@METRICS.register_module()
class PointClsMetric(BaseMetric):
    """Overall accuracy (OA) and the mean of the classes' accuracies (mAcc), in percent; logs a table of the classes."""

    def process(self, data_batch: Any, data_samples: Sequence[dict[str, Any]]) -> None:
        """Keep the label and the prediction of each cloud."""
        for sample in data_samples:
            self.results.append((int(sample['gt_label']), int(sample['pred_scores'].argmax())))

    def compute_metrics(self, results: list[tuple[int, int]]) -> dict[str, float]:
        """Return ``OA`` and ``mAcc``; a class without clouds counts for nothing."""
        from sklearn.metrics import accuracy_score, recall_score

        labels, predictions = zip(*results, strict=True)
        present = sorted(set(labels))
        accuracies = 100 * recall_score(labels, predictions, labels=present, average=None)
        self._log_table({label: (labels.count(label), accuracies[i]) for i, label in enumerate(present)})
        return {'OA': 100 * float(accuracy_score(labels, predictions)), 'mAcc': float(accuracies.mean())}

    def _log_table(self, rows: dict[int, tuple[int, float]]) -> None:
        table = Table('class', 'clouds', 'accuracy')
        for label, name in enumerate((self.dataset_meta or {}).get('classes') or map(str, sorted(rows))):
            count, accuracy = rows.get(label, (0, float('nan')))
            table.add_row(name, str(count), f'{accuracy:.2f}' if count else '-')
        console = Console(width=80)
        with console.capture() as capture:
            console.print(table)
        print_log('per class:\n' + capture.get().rstrip(), logger='current')
