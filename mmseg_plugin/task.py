"""Segmentation in the tools: what mmseg's own test script does, and label maps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import mmseg
from mmengine.config import Config
from torch import nn

from coc_core.checkpoints.layouts import SEGMENTATION
from coc_core.mm.data_checks import label_maps
from coc_core.mm.data_checks.inspection import (
    Inspection,
    datasets_of,
    evaluators_of,
    innermost_datasets,
    transforms_of,
)
from coc_core.mm.data_checks.problems import Problem
from coc_core.mm.task import Task, visualization_hook

if TYPE_CHECKING:
    from coc_core.mm.own_data.plan import DataRequest, Plan
    from mmseg_plugin.predictions import PixelPredictions

_IOU_METRICS = ('mIoU', 'mDice', 'mFscore')


class SegmentationTask(Task):
    """A class for each pixel."""

    scope = 'mmseg'
    layout = SEGMENTATION
    prediction_endings = ()
    # One tells boundaries from what is none, the other takes its classes from texts.
    counts_otherwise = Task.counts_otherwise | {'STDCHead', 'SideAdapterCLIPHead'}

    def report(self) -> str:
        """Return the evaluator behind a report."""
        # What trains has no use for it.
        from mmseg_plugin.reports import PixelReport

        return PixelReport.__name__

    def predictions(self) -> type[PixelPredictions]:
        """Return what becomes of predicted pixels."""
        from mmseg_plugin.predictions import PixelPredictions

        return PixelPredictions

    def exported_part(self, model: nn.Module) -> tuple[nn.Module, list[str]]:
        """Return the whole segmenter."""
        from mmseg_plugin.export import PixelLogits

        return PixelLogits(model).eval(), ['logits']

    def dump_predictions(self, cfg: Config, out: str) -> None:
        """Have the metrics write label maps into a folder, as mmseg's own tool does."""
        evaluators = cfg.test_evaluator if isinstance(cfg.test_evaluator, list) else [cfg.test_evaluator]
        for evaluator in evaluators:
            evaluator.update(output_dir=out, keep_results=True)

    def show_predictions(
        self, cfg: Config, *, window: bool, folder: str | None, interval: int, wait_time: float
    ) -> None:
        """Have mmseg's hook draw every image: of upstream it draws one batch in 50, of OneDL all of a test."""
        visualization_hook(cfg).interval = 1
        super().show_predictions(cfg, window=window, folder=folder, interval=interval, wait_time=wait_time)
        if folder:
            # What trains has no use for it.
            from mmseg_plugin.pictures import NamedPictures

            cfg.visualizer.vis_backends = [dict(type=NamedPictures.__name__, save_dir=folder)]

    def inspect(self, inspection: Inspection, dataset: Mapping[str, Any], *, files: bool) -> None:
        """Check images with their label maps; of other data sets the images alone."""
        if label_maps.has_maps(dataset):
            label_maps.inspect(inspection, self.scope, dataset)
            return
        loads = any(step.get('type') == 'LoadAnnotations' for step in transforms_of(dataset.get('pipeline')))
        if dataset.get('type') == 'BaseSegDataset' and loads:
            what = 'has no folder of label maps, which its pipeline loads: set dataset.data_prefix.seg_map_path'
            inspection.problems.append(Problem(inspection.name, what))
        super().inspect(inspection, dataset, files=files)

    def config_problems(self, cfg: Config, phase: str) -> Iterator[Problem]:
        """Yield parts that read labels in another way than others, and metrics that mmseg misses at the last image."""
        compared = [] if phase == 'train' else evaluators_of(cfg, phase)
        evaluators = [(f'{phase}_evaluator', item) for item in compared if item.get('type') == 'IoUMetric']
        for place, evaluator in evaluators:
            asked = evaluator.get('iou_metrics') or []
            unknown = [name for name in ([asked] if isinstance(asked, str) else asked) if name not in _IOU_METRICS]
            if unknown:
                yield Problem(f'{place}.iou_metrics', f'has {unknown[0]!r}: choose of {", ".join(_IOU_METRICS)}')
        data = [(f'{phase} data', entry) for entry in datasets_of(cfg, phase) if 'ignore_index' in entry]
        ignored = [(place, part.get('ignore_index', 255)) for place, part in (*data, *_heads(cfg), *evaluators)]
        for place, label in ignored:
            if label != ignored[0][1]:
                yield Problem(
                    f'ignore_index={label} of {place}',
                    f'is not the {ignored[0][1]} of {ignored[0][0]}: what counts for nothing in one counts in the '
                    'other, so set it to the same',
                )
        yield from _zero_problems(cfg, phase)

    def plan(self, request: DataRequest) -> Plan:
        """Plan a config for images with label maps."""
        # Only the tool that writes configs needs it.
        from mmseg_plugin.own_data import plan

        return plan(request)

    def pitfall(self, part: Mapping[str, Any], key: str) -> str | None:
        """Tell of the weights with which the loss of the upstream family stops."""
        weighted = key == 'class_weight' and part.get('type') == 'CrossEntropyLoss' and part[key] is not None
        if not weighted or part.get('use_sigmoid') or mmseg.__version__ != '1.2.2':
            return None
        return (
            'stops this version of mmseg where a pixel counts for nothing: give the weights to '
            "type='WeightedCrossEntropyLoss' if there are such pixels"
        )

    def class_count(self, part: Mapping[str, Any], key: str, classes: int) -> int | None:
        """Count the background among the weights of mmdet's losses, as heads that match masks have it."""
        needed = super().class_count(part, key, classes)
        kind = str(part.get('type'))
        if key == 'class_weight' and kind == 'CrossEntropyLoss' and part.get('use_sigmoid'):
            # mmseg multiplies them along the width of the image.
            return None
        if key == 'class_weight' and kind.startswith('mmdet.') and not part.get('use_sigmoid'):
            return classes + 1
        if key == 'out_channels' and _scores_pixels(kind):
            # Two classes may have one channel.
            return 1 if (part[key], classes) == (1, 2) else classes
        return needed


def _zero_problems(cfg: Config, phase: str) -> Iterator[Problem]:
    """Yield the warning about data in which 0 means another thing than in the training data: its files may be so."""
    trained, measured = (
        [label_maps.zero_is_none(SegmentationTask.scope, data) for data in innermost_datasets(cfg, name)
         if label_maps.has_maps(data)]
        for name in ('train', phase)
    )  # fmt: skip
    if trained and (other := [value for value in measured if value != trained[0]]):
        yield Problem(
            f'{phase}_dataloader.dataset.reduce_zero_label={other[0]}',
            f'is not the {trained[0]} of the training data: unless its label maps are numbered so, each label counts '
            'as its neighbor, so set it to the same',
            'warning',
        )


def _heads(cfg: Config) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the heads of a config's model that score pixels, with their places."""
    for key in ('decode_head', 'auxiliary_head'):
        given = (cfg.get('model') or {}).get(key)
        for head in given if isinstance(given, (list, tuple)) else [given]:
            if isinstance(head, Mapping) and ('ignore_index' in head or _scores_pixels(str(head.get('type')))):
                yield f'model.{key}', head


def _scores_pixels(kind: str) -> bool:
    """Whether a head of this name has a channel for each class; those that make masks have other channels."""
    # What shows or exports a model has no use for it, and it takes seconds to import.
    from mmseg.models.decode_heads.decode_head import BaseDecodeHead
    from mmseg.registry import MODELS

    return issubclass(MODELS.get(kind) or object, BaseDecodeHead)
