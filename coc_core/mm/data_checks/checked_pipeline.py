"""A data set's pipeline that names the file where a sample fails."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from mmengine.dataset import Compose

from coc_core.errors import UserError, during
from coc_core.mm.data_checks.images import annotated_size_difference, read_pixels
from coc_core.mm.data_checks.label_maps import (
    LabelRule,
    channel_difference,
    label_difference,
    label_rule,
    label_values,
    lost_labels,
    size_difference,
)
from coc_core.mm.data_checks.problems import Problem
from coc_core.mm.loading import loaders_of
from coc_core.visualization.decoding import is_torn

_TOOL = 'tools/dataset_converters/check_data.py lists every such file'


class CheckedPipeline(Compose):  # type: ignore[misc]
    """Runs a pipeline's transforms; looks at each sample's files once before, and at label maps when they are loaded.

    Where a transform fails, the sample's own files are looked at: a damaged one is the user's to mend, and told in one
    sentence. Any other error is the transform's, and keeps its stack trace after a line that names the sample.

    Args:
        transforms: The built transforms.
        rule: Which values label maps may hold in their files, where they are checked.
        classes: Number of classes that they are numbered by once they are loaded.
        samples: Number of samples, whose files are looked at once, whatever worker and epoch loads them.

    Raises:
        UserError: When called: an image is damaged or of another size than its annotations, or a label map does not fit
            its image or the classes.
    """

    def __init__(self, transforms: list[Any], rule: LabelRule | None, classes: int, samples: int) -> None:
        super().__init__(transforms)
        self.image_loader, self.map_loader = loaders_of(transforms)
        self.stored = rule if self.map_loader.transform is not None else None
        # Zero is reduced and classes are renumbered by then.
        self.loaded = rule and replace(rule, num_labels=classes, reduce_zero_label=False)
        # Shared by the processes that load samples.
        self.seen = torch.zeros(samples, dtype=torch.bool)
        self.seen.share_memory_()  # type: ignore[no-untyped-call]

    def __call__(self, data: dict[str, Any]) -> dict[str, Any] | None:
        """Run the transforms on one sample."""
        named = {key: data[key] for key in ('img_path', 'seg_map_path') if isinstance(data.get(key), str)}
        # What a storage client reads is no file here.
        files = {key: path for key, path in named.items() if '://' not in path}
        self._look_once(data.get('sample_idx'), files)
        unchecked = self.loaded is not None
        # As the annotations say it: boxes and masks of another size would be laid over the image.
        size = (data.get('height'), data.get('width')) if 'img_path' in files else (None, None)
        result: dict[str, Any] | None = data
        name = named.get('img_path') or data.get('sample')
        for transform in self.transforms:
            with during(f'running {type(transform).__name__} on the sample {name}'):
                try:
                    result = transform(result)
                except Exception as error:
                    self._blame_files(files, error)
                    raise
            if result is None:
                return None
            if None not in size and 'ori_shape' in result:
                if what := annotated_size_difference(tuple(result['ori_shape'][:2]), size):
                    raise UserError(f'{name} {what} ({_TOOL}).')
                size = (None, None)
            if unchecked and 'gt_seg_map' in result:
                unchecked = False
                self._check(result, files.get('seg_map_path'))
        return result

    def _look_once(self, place: int | None, files: Mapping[str, str]) -> None:
        known = place is not None and 0 <= place < len(self.seen)
        if known and self.seen[place]:
            return
        image, label_map = files.get('img_path'), files.get('seg_map_path')
        if image is not None and is_torn(Path(image)):
            self._blame_files(files)
        if label_map is not None and self.stored is not None:
            wrong = lost_labels(Path(label_map), self.stored, self.map_loader)
            if wrong:
                raise _unusable(label_map, label_difference(wrong, self.stored))
        if known:
            self.seen[place] = True

    def _check(self, data: Mapping[str, Any], path: Any) -> None:
        assert self.loaded is not None
        labels = data['gt_seg_map']
        size = data.get('ori_shape')
        if labels.ndim > 2:
            raise _unusable(path, channel_difference(labels.shape))
        if size is not None and tuple(labels.shape) != tuple(size[:2]):
            raise _unusable(path, size_difference(labels.shape, size))
        if wrong := self.loaded.wrong_labels(label_values(labels)):
            raise _unusable(path, label_difference(wrong, self.loaded))

    def _blame_files(self, files: Mapping[str, str], error: Exception | None = None) -> None:
        """Raise UserError where one of a sample's files is the reason why it cannot be loaded."""
        for key, load in (('img_path', self.image_loader), ('seg_map_path', self.map_loader)):
            pixels = read_pixels(Path(files[key]), load) if key in files else None
            if isinstance(pixels, Problem):
                raise UserError(f'{str(pixels).rstrip(".")} ({_TOOL}).') from error


def _unusable(label_map: Any, what: str) -> UserError:
    return UserError(f'The label map {label_map} {what} ({_TOOL}).')


def check_samples(dataset: Any) -> None:
    """Have every sample of a built data set, and of those it wraps, checked while it is loaded."""
    for inner in (*(getattr(dataset, 'datasets', None) or ()), getattr(dataset, 'dataset', None)):
        if inner is not None:
            check_samples(inner)
    pipeline: Any = getattr(dataset, 'pipeline', None)
    if type(pipeline) is Compose:
        rule, classes = _label_rule(dataset), len(getattr(dataset, 'metainfo', {}).get('classes') or ())
        dataset.pipeline = CheckedPipeline(pipeline.transforms, rule, classes, len(dataset))


def _label_rule(dataset: Any) -> LabelRule | None:
    """Return the rule for the label maps of a built data set; None where it has none that mmseg loads."""
    if 'label_map' not in getattr(dataset, 'metainfo', {}):
        return None
    settings = dict(reduce_zero_label=dataset.reduce_zero_label, ignore_index=dataset.ignore_index)
    return label_rule(type(dataset), dict(metainfo=dataset.metainfo, **settings))
