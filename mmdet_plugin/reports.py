"""The report of a test of detectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from mmdet.evaluation.functional.bbox_overlaps import bbox_overlaps
from mmdet.evaluation.functional.mean_ap import eval_map, tpfp_default
from mmdet.registry import METRICS
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from coc_core.mm.reports.metric import Record, ReportMetric, percent
from coc_core.mm.reports.page import Case, Page, encoded, fitted

_LONGEST_SIDE, _SHORTEST_SIDE = 480, 384
_TEXT_SIZE = 13
_IOU = 0.5
_SCORE = 0.3
# Colors of Okabe and Ito: what is found, missed, and found where nothing is.
_RIGHT, _MISSED, _FALSE = (0, 158, 115), (240, 228, 66), (213, 94, 0)


class Objects(NamedTuple):
    """What an image has and what was found in it.

    Attributes:
        truth: ``bboxes`` and ``labels``, and those that are to be ignored, as `eval_map` takes them.
        found: For each class boxes with scores, [N, 5].
        right: For each class, which of the found ones that the model is sure of are right, bool.
        false: Likewise, which are false; those on an ignored object are neither.
    """

    truth: dict[str, NDArray[Any]]
    found: list[NDArray[Any]]
    right: list[NDArray[Any]]
    false: list[NDArray[Any]]

    def missed(self, label: int) -> int:
        """Return how many objects of a class were not found."""
        return int((self.truth['labels'] == label).sum()) - int(self.right[label].sum())


@METRICS.register_module()
class ObjectReport(ReportMetric):
    """Of boxes: average precision of the classes, and the images with most missed and false objects."""

    truth = 'gt_instances'

    def record(self, sample: Mapping[str, Any]) -> Record:
        """Match boxes of the image by classes."""
        truth = {**_boxes(sample['gt_instances'], ''), **_boxes(sample.get('ignored_instances', {}), '_ignore')}
        boxes, labels, scores = (_array(sample['pred_instances'][key]) for key in ('bboxes', 'labels', 'scores'))
        everything = np.concatenate([boxes, scores[:, None]], axis=1)
        found = [everything[labels == i] for i in range(len(self.classes))]
        right, false = [], []
        for i, boxes in enumerate(found):
            own, ignored = (truth[f'bboxes{kind}'][truth[f'labels{kind}'] == i] for kind in ('', '_ignore'))
            sure = boxes[boxes[:, 4] >= _SCORE]
            matched, unmatched = tpfp_default(sure, own, ignored, iou_thr=_IOU)
            right.append(matched[0] > 0)
            false.append(unmatched[0] > 0)
        objects = Objects(truth, found, right, false)
        missed, wrong = _mistakes(objects)
        return Record(objects, float(missed + wrong) if missed + wrong else None)

    def case(self, record: Record, sample: Mapping[str, Any], inputs: Any, place: int) -> Case:
        """Draw what was found, missed and false."""
        objects: Objects = record.facts
        missed, false = _mistakes(objects)
        lines = [f'{missed} of {len(objects.truth["labels"])} missed, {false} false']
        image = self.image_of(sample)
        if image is None:
            return Case(tuple(lines))
        return Case((*lines, str(sample['img_path'])), encoded(self._drawn(image, objects)))

    def _drawn(self, image: NDArray[Any], objects: Objects) -> Image.Image:
        """Draw a frame around each object; those that are found have that of the prediction."""
        picture = fitted(image, _LONGEST_SIDE, _SHORTEST_SIDE)
        factors = np.divide(picture.size, image.shape[1::-1])
        draw = ImageDraw.Draw(picture)
        # Pillow's own font has Latin letters without accents alone.
        font = ImageFont.truetype(Path(matplotlib.get_data_path(), 'fonts', 'ttf', 'DejaVuSans.ttf'), _TEXT_SIZE)

        def frame(box: NDArray[Any], color: tuple[int, int, int], text: str) -> None:
            left, top, right, bottom = (float(place) for place in box[:4] * np.tile(factors, 2))
            draw.rectangle((left, top, max(left, right), max(top, bottom)), outline=color, width=2)
            # Colors of letters are lost on some images, black letters on a color on none.
            covered = draw.textbbox((0, 0), text, font=font, anchor='lt')
            corner = np.clip((left, top), 0, np.maximum(np.subtract(picture.size, covered[2:]) - 4, 0))
            draw.rectangle((*corner, *(corner + covered[2:] + 4)), fill=color)
            draw.text(tuple(corner + 2), text, fill='black', font=font, anchor='lt')

        for label, boxes in enumerate(objects.found):
            sure = boxes[boxes[:, 4] >= _SCORE]
            own = objects.truth['bboxes'][objects.truth['labels'] == label]
            overlaps = bbox_overlaps(own, sure[objects.right[label]][:, :4])
            for box in own[overlaps.max(axis=1, initial=0) < _IOU]:
                frame(box, _MISSED, self.classes[label])
            for box, right, false in zip(sure, objects.right[label], objects.false[label], strict=True):
                if right or false:
                    frame(box, _RIGHT if right else _FALSE, f'{self.classes[label]} {box[4]:.2f}')
        return picture

    def page(self, facts: Sequence[Any], cases: Sequence[Case]) -> Page:
        """Have mmdet compute the average precision, and count objects by classes."""
        mean, results = eval_map(
            [objects.found for objects in facts], [objects.truth for objects in facts], iou_thr=_IOU, logger='silent'
        )
        rows = []
        for i in sorted(range(len(self.classes)), key=lambda i: (results[i]['num_gts'] == 0, float(results[i]['ap']))):
            count, missed = int(results[i]['num_gts']), sum(objects.missed(i) for objects in facts)
            false = sum(int(objects.false[i].sum()) for objects in facts)
            precision = f'{100 * float(results[i]["ap"]):.1f}' if count else '-'
            rows.append([self.classes[i], str(count), precision, percent(count - missed, count), str(false)])
        missed, false = (sum(numbers) for numbers in zip(*map(_mistakes, facts), strict=True))
        total = sum(len(objects.truth['labels']) for objects in facts)
        return Page(
            title=self.title,
            summary=[
                f'{len(facts)} images with {total} objects: mean AP of the boxes at IoU {_IOU:g} {100 * mean:.1f} %. '
                f'Of what has a score of at least {_SCORE:g}, {false} are false, and {missed} objects are missed.',
            ],
            header=['class', 'objects', f'AP at IoU {_IOU:g}, %', 'found, %', 'false'],
            rows=rows,
            matrix=None,
            cases_title='Images with most missed (yellow) and false (orange) objects; green: found',
            cases=cases,
        )


def _array(values: Any) -> NDArray[Any]:
    array: NDArray[Any] = getattr(values, 'tensor', values).cpu().numpy()
    return array


def _boxes(instances: Mapping[str, Any], kind: str) -> dict[str, NDArray[Any]]:
    if 'bboxes' not in instances:
        return {f'bboxes{kind}': np.zeros((0, 4), np.float32), f'labels{kind}': np.zeros(0, np.int64)}
    return {f'{key}{kind}': _array(instances[key]) for key in ('bboxes', 'labels')}


def _mistakes(objects: Objects) -> tuple[int, int]:
    """Return how many objects are missed, and how many false."""
    labels = range(len(objects.found))
    return sum(map(objects.missed, labels)), sum(int(objects.false[i].sum()) for i in labels)
