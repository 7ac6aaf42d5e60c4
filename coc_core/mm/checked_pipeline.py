"""A data set's pipeline that names the file where a sample fails."""

from __future__ import annotations

from typing import Any

from mmengine.dataset import Compose

from coc_core.mm.data_checks.images import is_torn
from coc_core.mm.data_checks.inspection import label_rule
from coc_core.mm.data_checks.label_maps import LabelRule, label_difference, size_difference
from coc_core.mm.errors import LaunchError


class CheckedPipeline(Compose):  # type: ignore[misc]
    """Runs a pipeline's transforms; looks at images before and at label maps as soon as they are loaded.

    Args:
        transforms: The built transforms.
        rule: Which values label maps may hold after loading, where they are checked.

    Raises:
        LaunchError: When called: a transform fails, an image is truncated, or a label map does not fit its image or
            the classes.
    """

    def __init__(self, transforms: list[Any], rule: LabelRule | None) -> None:
        super().__init__(transforms)
        self.rule = rule

    def __call__(self, data: dict[str, Any]) -> dict[str, Any] | None:
        """Run the transforms on one sample."""
        image, label_map = data.get('img_path'), data.get('seg_map_path')
        checked = self.rule is None
        if isinstance(image, str) and is_torn(image):
            raise LaunchError(
                f'The image {image} is truncated: replace or remove it (tools/check_data.py lists every one).'
            )
        result: dict[str, Any] | None = data
        for transform in self.transforms:
            try:
                result = transform(result)
            except Exception as error:
                reason = str(error) or type(error).__name__
                raise LaunchError(
                    f'The sample {image or data.get("sample")} fails in {type(transform).__name__}: {reason} '
                    '(tools/check_data.py lists every such file).'
                ) from error
            if result is None:
                return None
            if not checked and 'gt_seg_map' in result:
                checked = True
                self._check(result, label_map)
        return result

    def _check(self, data: dict[str, Any], path: Any) -> None:
        assert self.rule is not None
        labels = data['gt_seg_map']
        size = data.get('ori_shape')
        what = ''
        if size is not None and tuple(labels.shape[:2]) != tuple(size[:2]):
            what = size_difference(labels.shape, size)
        elif wrong := self.rule.wrong_labels(labels):
            what = label_difference(wrong, self.rule)
        if what:
            raise LaunchError(f'The label map {path} {what} (tools/check_data.py lists every such file).')


def check_samples(dataset: Any) -> None:
    """Have every sample of a built data set, and of those it wraps, checked while it is loaded."""
    for inner in (*(getattr(dataset, 'datasets', None) or ()), getattr(dataset, 'dataset', None)):
        if inner is not None:
            check_samples(inner)
    pipeline: Any = getattr(dataset, 'pipeline', None)
    if type(pipeline) is Compose:
        dataset.pipeline = CheckedPipeline(pipeline.transforms, _loaded_rule(dataset))


def _loaded_rule(dataset: Any) -> LabelRule | None:
    """The rule for maps as the transforms leave them: zero reduced and classes renumbered already."""
    if 'label_map' not in getattr(dataset, 'metainfo', {}):
        return None
    if label_rule(type(dataset), dict(metainfo=dataset.metainfo)) is None:
        return None
    return LabelRule(len(dataset.metainfo['classes']), reduce_zero_label=False, ignore_index=dataset.ignore_index)
