"""The evaluator behind a report: a record of every sample, and a picture of the worst alone."""

from __future__ import annotations

import heapq
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log
from numpy.typing import NDArray

from coc_core.errors import UserError
from coc_core.files import write_bytes
from coc_core.mm.loading import image_loader
from coc_core.mm.reports.page import Case, Page, to_html
from coc_core.visualization.files import read_image

FILE = 'report.html'


@dataclass
class Record:
    """What is kept of a sample.

    Attributes:
        facts: What the page's numbers are made of.
        badness: How wrong it is; None where nothing is wrong.
        case: What the page shows of it, while it is among the worst of its process.
    """

    facts: Any
    badness: float | None = None
    case: Case | None = None


class ReportMetric(BaseMetric):
    """Writes ``report.html`` at the end of a test, and adds no metric.

    Attributes:
        truth: The key of a sample's annotation.

    Args:
        folder: The folder of the file.
        title: The page's heading.
        pipeline: The steps of the test pipeline, for its way to read images.
        worst: How many samples are shown.
    """

    truth = ''
    # Without any, mmengine warns.
    default_prefix = 'report'

    def __init__(self, folder: str, title: str, pipeline: Sequence[Any] = (), worst: int = 24) -> None:
        super().__init__()
        self.path = Path(folder) / FILE
        self.title = title
        self.worst = worst
        self._pipeline = pipeline
        self._order = count()
        self._shown: list[tuple[float, int, Record]] = []

    @abstractmethod
    def record(self, sample: Mapping[str, Any]) -> Record:
        """Return what is kept of a sample with annotation and prediction."""

    @abstractmethod
    def case(self, record: Record, sample: Mapping[str, Any], inputs: Any, place: int) -> Case:
        """Return what the page shows of a sample.

        Args:
            record: What is kept of it.
            sample: The sample.
            inputs: What the model got of the batch.
            place: The sample's place in it.
        """

    @abstractmethod
    def page(self, facts: Sequence[Any], cases: Sequence[Case]) -> Page:
        """Return the page.

        Args:
            facts: The facts of all samples.
            cases: The worst samples, the worst first.
        """

    @property
    def classes(self) -> Sequence[str]:
        """The names of the data set's classes; empty where nobody names them."""
        return (self.dataset_meta or {}).get('classes') or ()

    def process(self, data_batch: Any, data_samples: Sequence[Mapping[str, Any]]) -> None:
        """Keep a batch."""
        for place, sample in enumerate(data_samples):
            if self.truth not in sample:
                raise UserError('--report compares predictions with annotations, and the test data has none.')
            record = self.record(sample)
            self.results.append(record)
            if record.badness is None:
                continue
            entry = (record.badness, -next(self._order), record)
            if len(self._shown) < self.worst:
                heapq.heappush(self._shown, entry)
            elif entry < self._shown[0]:
                continue
            else:
                heapq.heapreplace(self._shown, entry)[2].case = None
            record.case = self.case(record, sample, data_batch['inputs'], place)

    def compute_metrics(self, results: list[Record]) -> dict[str, float]:
        """Write the page; return no metric.

        Raises:
            UserError: It cannot be written.
        """
        shown = [record for record in results if record.case is not None]
        shown.sort(key=lambda record: record.badness or 0.0, reverse=True)
        cases = [record.case for record in shown[: self.worst] if record.case is not None]
        page = self.page([record.facts for record in results], cases)
        write_bytes(self.path, to_html(page).encode())
        print_log(f'Report: {self.path}', logger='current')
        return {}

    def image_of(self, sample: Mapping[str, Any]) -> NDArray[Any] | None:
        """Read the image of a sample as the pipeline does: uint8 [H, W, 3], RGB; None where it has no file.

        Raises:
            UserError: The file cannot be read.
        """
        path = sample.get('img_path')
        return None if path is None else read_image(Path(path), load=image_loader(self._pipeline))


def percent(part: float, whole: float) -> str:
    """Return a share in percent, a dash where there is nothing to have a share of."""
    return f'{100 * part / whole:.1f}' if whole else '-'
