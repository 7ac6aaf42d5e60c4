"""A data set's pipeline that names the file where a sample fails."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.dataset import Compose

from coc_core.errors import UserError, during
from coc_core.mm.data_checks.images import is_torn, read_pixels
from coc_core.mm.data_checks.label_maps import LabelRule, label_difference, label_rule, size_difference
from coc_core.mm.data_checks.problems import Problem

_TOOL = 'tools/dataset_converters/check_data.py lists every such file'


class CheckedPipeline(Compose):  # type: ignore[misc]
    """Runs a pipeline's transforms; looks at each image once before, and at label maps as soon as they are loaded.

    Where a transform fails, the sample's own files are looked at: a damaged one is the user's to mend, and told in one
    sentence. Any other error is the transform's, and keeps its stack trace after a line that names the sample.

    Args:
        transforms: The built transforms.
        rule: Which values label maps may hold after loading, where they are checked.
        samples: Number of samples, whose images are looked at once, whatever worker and epoch loads them.

    Raises:
        UserError: When called: an image is damaged, or a label map does not fit its image or the classes.
    """

    def __init__(self, transforms: list[Any], rule: LabelRule | None, samples: int) -> None:
        super().__init__(transforms)
        self.rule = rule
        # Shared by the processes that load samples.
        self.seen = torch.zeros(samples, dtype=torch.bool)
        self.seen.share_memory_()  # type: ignore[no-untyped-call]

    def __call__(self, data: dict[str, Any]) -> dict[str, Any] | None:
        """Run the transforms on one sample."""
        files = {key: data[key] for key in ('img_path', 'seg_map_path') if isinstance(data.get(key), str)}
        self._look_once(data.get('sample_idx'), files.get('img_path'))
        unchecked = self.rule is not None
        result: dict[str, Any] | None = data
        name = files.get('img_path') or data.get('sample')
        for transform in self.transforms:
            with during(f'running {type(transform).__name__} on the sample {name}'):
                try:
                    result = transform(result)
                except Exception as error:
                    _blame_files(files, error)
                    raise
            if result is None:
                return None
            if unchecked and 'gt_seg_map' in result:
                unchecked = False
                self._check(result, files.get('seg_map_path'))
        return result

    def _look_once(self, place: int | None, image: str | None) -> None:
        if image is None or (place is not None and 0 <= place < len(self.seen) and self.seen[place]):
            return
        if is_torn(image):
            raise UserError(f'The image {image} is truncated: replace or remove it ({_TOOL}).')
        if place is not None and 0 <= place < len(self.seen):
            self.seen[place] = True

    def _check(self, data: Mapping[str, Any], path: Any) -> None:
        assert self.rule is not None
        labels = data['gt_seg_map']
        size = data.get('ori_shape')
        what = ''
        if size is not None and tuple(labels.shape[:2]) != tuple(size[:2]):
            what = size_difference(labels.shape, size)
        elif wrong := self.rule.wrong_labels(labels):
            what = label_difference(wrong, self.rule)
        if what:
            raise UserError(f'The label map {path} {what} ({_TOOL}).')


def _blame_files(files: Mapping[str, str], error: Exception) -> None:
    """Raise UserError where one of a sample's files is the reason why it cannot be loaded."""
    for path in files.values():
        pixels = read_pixels(Path(path))
        if isinstance(pixels, Problem):
            raise UserError(f'{str(pixels).rstrip(".")} ({_TOOL}).') from error


def check_samples(dataset: Any) -> None:
    """Have every sample of a built data set, and of those it wraps, checked while it is loaded."""
    for inner in (*(getattr(dataset, 'datasets', None) or ()), getattr(dataset, 'dataset', None)):
        if inner is not None:
            check_samples(inner)
    pipeline: Any = getattr(dataset, 'pipeline', None)
    if type(pipeline) is Compose:
        dataset.pipeline = CheckedPipeline(pipeline.transforms, _loaded_rule(dataset), len(dataset))


def _loaded_rule(dataset: Any) -> LabelRule | None:
    """Return the rule for maps as the transforms leave them: zero reduced and classes renumbered already."""
    if 'label_map' not in getattr(dataset, 'metainfo', {}):
        return None
    if label_rule(type(dataset), dict(metainfo=dataset.metainfo)) is None:
        return None
    return LabelRule(len(dataset.metainfo['classes']), reduce_zero_label=False, ignore_index=dataset.ignore_index)
