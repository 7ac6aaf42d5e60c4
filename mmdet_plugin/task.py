"""Detection in the tools: what mmdet's own test script does, and COCO's annotations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import TYPE_CHECKING, Any

from mmengine.config import Config

from coc_core.checkpoints.layouts import DETECTION
from coc_core.errors import UserError
from coc_core.mm.data_checks import coco
from coc_core.mm.data_checks.inspection import Inspection, dataset_class
from coc_core.mm.task import Task, add_evaluator, visualization_hook

if TYPE_CHECKING:
    from coc_core.mm.own_data.plan import DataRequest, Plan
    from mmdet_plugin.predictions import ObjectPredictions

_FLIPS = [dict(type='RandomFlip', prob=1.0), dict(type='RandomFlip', prob=0.0)]
_PACK = dict(
    type='PackDetInputs',
    meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor', 'flip', 'flip_direction'),
)


class DetectionTask(Task):
    """Boxes and masks."""

    scope = 'mmdet'
    layout = DETECTION
    # Whatever a config says, an RPN tells objects from background; the others have classes or words of their own.
    counts_otherwise = Task.counts_otherwise | {'rpn_head', 'semantic_head', 'GroundingDINOHead'}
    tta_model: Mapping[str, Any] = dict(
        type='DetTTAModel', tta_cfg=dict(nms=dict(type='nms', iou_threshold=0.5), max_per_img=100)
    )

    def report(self) -> str:
        """Return the evaluator behind a report."""
        # What trains has no use for it.
        from mmdet_plugin.reports import ObjectReport

        return ObjectReport.__name__

    def predictions(self) -> type[ObjectPredictions]:
        """Return what becomes of predicted objects."""
        from mmdet_plugin.predictions import ObjectPredictions

        return ObjectPredictions

    def tta_pipeline(self, pipeline: Sequence[Any]) -> list[Any]:
        """Return the pipeline with each image as it is and flipped."""
        return [*deepcopy(pipeline[:-1]), dict(type='TestTimeAug', transforms=[deepcopy(_FLIPS), [deepcopy(_PACK)]])]

    def check_augmentation(self, cfg: Config) -> None:
        """Refuse models with masks: mmdet averages boxes alone."""
        if (cfg.model.get('roi_head') or {}).get('mask_head') is not None:
            raise UserError('--tta: mmdet averages boxes but no masks, and this model has masks: leave --tta out.')

    def dump_predictions(self, cfg: Config, out: str) -> None:
        """Have testing write boxes, scores, labels and masks as mmdet's own tool does."""
        add_evaluator(cfg, dict(type='DumpDetResults', out_file_path=out))

    def show_predictions(
        self, cfg: Config, *, window: bool, folder: str | None, interval: int, wait_time: float
    ) -> None:
        """Have every image drawn, in folders like those of the images."""
        # What trains has no use for it.
        from mmdet_plugin.pictures import FolderedDetPicturesHook

        hook = visualization_hook(cfg)
        hook.update(draw=True, show=window, wait_time=wait_time, test_out_dir=folder)
        if hook.type == 'DetVisualizationHook':
            hook.type = FolderedDetPicturesHook.__name__

    def inspect(self, inspection: Inspection, dataset: Mapping[str, Any], *, files: bool) -> None:
        """Check COCO annotation files; of other data sets the images alone."""
        kind = dataset_class(self.scope, dataset)
        if dataset.get('ann_file') and _reads_coco(kind) and not hasattr(kind, 'inspect'):
            coco.inspect(inspection, self.scope, dataset)
        else:
            super().inspect(inspection, dataset, files=files)

    def plan(self, request: DataRequest) -> Plan:
        """Plan a config for COCO annotation files."""
        # Only the tool that writes configs needs it.
        from mmdet_plugin.own_data import plan

        return plan(request)

    def class_count(self, part: Mapping[str, Any], key: str, classes: int) -> int | None:
        """Count the background among the weights of a softmax loss; those of a mask's loss are for no classes."""
        needed = super().class_count(part, key, classes)
        if key != 'class_weight':
            return needed
        if part.get('use_mask'):
            return None
        return classes if part.get('use_sigmoid') else classes + 1


def _reads_coco(kind: Any) -> bool:
    """Whether a data set reads its annotation file as mmdet's CocoDataset does, unlike panoptic COCO or LVIS."""
    from mmdet.datasets import CocoDataset

    if not issubclass(kind, CocoDataset):
        return False
    return kind.COCOAPI is CocoDataset.COCOAPI and kind.load_data_list is CocoDataset.load_data_list
