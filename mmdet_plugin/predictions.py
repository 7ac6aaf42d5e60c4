"""What becomes of the predictions of detectors."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from coc_core.files import replacing, write_bytes
from coc_core.mm.prediction.inputs import Shard
from coc_core.mm.prediction.predictions import Predictions


class ObjectPredictions(Predictions):
    """The objects of each image, with boxes and masks."""

    default_score = 0.3

    def columns(self, sample: Any) -> dict[str, Any]:
        """Return how many objects there are, of which classes, and each with its box [x1, y1, x2, y2] and mask."""
        found = self._sure(sample).pred_instances.cpu()
        names = [self.class_name(label) for label in found.labels.tolist()]
        boxes, scores = found.bboxes.tolist(), found.scores.tolist()
        objects = [
            {'class': name, 'label': label, 'score': round(score, 6), 'box': [round(side, 3) for side in box]}
            for name, label, score, box in zip(names, found.labels.tolist(), scores, boxes, strict=True)
        ]
        if 'masks' in found:
            for entry, mask in zip(objects, _encoded(found.masks), strict=True):
                entry['mask'] = mask
        return {'count': len(objects), 'classes': dict(Counter(names).most_common()), 'objects': objects}

    def draw(self, image: NDArray[Any], sample: Any, path: Path) -> None:
        """Have mmdet draw boxes, masks, names and scores."""
        with replacing(path) as beside:
            self.visualizer.add_datasample(
                path.name, image, self._sure(sample), draw_gt=False, pred_score_thr=-1.0, out_file=str(beside)
            )

    def write_at_end(self, rows: Iterable[Mapping[str, Any]], stem: Path, shard: Shard) -> list[Path]:
        """Write results as COCO's tools read them, and the images and categories that their numbers mean."""
        results, images = (stem.with_name(f'{stem.name}.coco-{what}.json') for what in ('results', 'images'))
        listed = []
        # Row by row: the objects of a million images are no list to hold.
        with replacing(results) as beside, beside.open('w') as file:
            file.write('[')
            separator = '\n'
            for place, row in enumerate(rows):
                number = place * shard.count + shard.index + 1
                name = row['path'] if row['frame'] is None else f'{row["path"]}#{row["frame"]}'
                listed.append({'id': number, 'file_name': name, 'height': row['height'], 'width': row['width']})
                for entry in row['objects']:
                    file.write(f'{separator}{json.dumps(_coco_result(number, entry))}')
                    separator = ',\n'
            file.write('\n]\n')
        categories = [{'id': place + 1, 'name': name} for place, name in enumerate(self.classes)]
        write_bytes(images, json.dumps({'images': listed, 'categories': categories, 'annotations': []}).encode())
        return [results, images]

    def _sure(self, sample: Any) -> Any:
        """Return a prediction without the objects whose score is below what the user asks for."""
        kept = sample.new()
        kept.pred_instances = sample.pred_instances[sample.pred_instances.scores >= self.wishes.score]
        return kept


def _encoded(masks: Any) -> list[dict[str, Any]]:
    """Return masks [N, H, W] in COCO's run-length form, which is text."""
    from mmdet.structures.mask import encode_mask_results

    return [{'size': rle['size'], 'counts': rle['counts'].decode()} for rle in encode_mask_results(masks.numpy())]


def _coco_result(image: int, entry: Mapping[str, Any]) -> dict[str, Any]:
    left, top, right, bottom = entry['box']
    result = {
        'image_id': image,
        'category_id': entry['label'] + 1,
        'bbox': [left, top, round(right - left, 3), round(bottom - top, 3)],
        'score': entry['score'],
    }
    return {**result, 'segmentation': entry['mask']} if 'mask' in entry else result
