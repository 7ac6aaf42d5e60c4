"""Classification in the tools: what mmpretrain's own scripts do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import TYPE_CHECKING, Any

from mmengine.config import Config
from mmpretrain.registry import DATASETS
from torch import nn

from coc_core.checkpoints.layouts import CLASSIFICATION
from coc_core.errors import UserError
from coc_core.mm.data_checks import class_folders, image_lists
from coc_core.mm.data_checks.inspection import Inspection, dataset_class
from coc_core.mm.data_checks.problems import Problem
from coc_core.mm.loading import image_loader
from coc_core.mm.task import Task, visualization_hook

if TYPE_CHECKING:
    from coc_core.mm.own_data.plan import DataRequest, Plan
    from mmpretrain_plugin.predictions import ClassPredictions

_FLIPS = [dict(type='RandomFlip', prob=1.0), dict(type='RandomFlip', prob=0.0)]


class ClassificationTask(Task):
    """One class for each image."""

    scope = 'mmpretrain'
    layout = CLASSIFICATION
    # mmpretrain's own tools add these, and its data configs rely on them.
    loader_defaults: Mapping[str, Any] = dict(
        collate_fn=dict(type='default_collate'), pin_memory=True, persistent_workers=True
    )
    tta_model: Mapping[str, Any] = dict(type='mmpretrain.AverageClsScoreTTA')

    def report(self) -> str:
        """Return the evaluator behind a report."""
        # What trains has no use for it.
        from mmpretrain_plugin.reports import ImageClassReport

        return ImageClassReport.__name__

    def predictions(self) -> type[ClassPredictions]:
        """Return what becomes of predicted classes."""
        from mmpretrain_plugin.predictions import ClassPredictions

        return ClassPredictions

    def tta_pipeline(self, pipeline: Sequence[Any]) -> list[Any]:
        """Return the pipeline with each image as it is and flipped."""
        *steps, pack = deepcopy(list(pipeline))
        return [*steps, dict(type='TestTimeAug', transforms=[deepcopy(_FLIPS), [pack]])]

    def show_predictions(
        self, cfg: Config, *, window: bool, folder: str | None, interval: int, wait_time: float
    ) -> None:
        """Have every ``interval``-th image drawn, in folders like those of the images."""
        # What trains has no use for it.
        from mmpretrain_plugin.pictures import FolderedPicturesHook

        hook = visualization_hook(cfg)
        hook.update(enable=True, show=window, wait_time=wait_time, out_dir=folder, interval=interval)
        if hook.type == 'VisualizationHook':
            hook.type = FolderedPicturesHook.__name__

    def check_augmentation(self, cfg: Config) -> None:
        """Check that no augmented copies are to be drawn, at which mmpretrain stops.

        Raises:
            UserError: They are.
        """
        if ((cfg.get('default_hooks') or {}).get('visualization') or {}).get('enable'):
            raise UserError(
                '--tta: mmpretrain draws no augmented copies. Leave out --show and --show-dir, or draw with '
                'tools/predict.py --tta.'
            )

    def inspect(self, inspection: Inspection, dataset: Mapping[str, Any], *, files: bool) -> None:
        """Check class folders, and files that list images; of other data sets the images alone."""
        if _reads_training_pictures(self.scope, dataset):
            told = "has split='test' and reads the training pictures all the same: add test_mode=True"
            inspection.problems.append(Problem(inspection.name, told))
        built = _unloaded(self.scope, dataset)
        if built is None:
            super().inspect(inspection, dataset, files=files)
        else:
            loader = image_loader(dataset.get('pipeline'), self.scope) if files else None
            (image_lists if built.ann_file else class_folders).inspect(inspection, built, loader)

    def plan(self, request: DataRequest) -> Plan:
        """Plan a config for images in class folders."""
        # Only the tool that writes configs needs it.
        from mmpretrain_plugin.own_data import plan

        return plan(request)

    def counting_parts(self, cfg: Mapping[str, Any]) -> dict[str, Any]:
        """Return the model, and the preprocessor where it spreads labels over all classes."""
        model = cfg.get('model') or {}
        inner = model.get('data_preprocessor')
        own = inner or cfg.get('data_preprocessor') or {}
        mixed = (model.get('train_cfg') or {}).get('augments') or own.get('batch_augments') or own.get('to_onehot')
        name = 'model.data_preprocessor' if inner else 'data_preprocessor'
        # timm makes a head of that size where nobody says another.
        default = {'num_classes': 1000} if str(model.get('type')).endswith('TimmClassifier') else {}
        # Without a number mmpretrain stops at the first batch.
        return {'model': {**default, **model}, **({name: {'num_classes': 0, **own}} if mixed else {})}

    def exported_part(self, model: nn.Module) -> tuple[nn.Module, list[str]]:
        """Return the whole classifier."""
        return model, ['logits']

    def tested_size(self, cfg: Config) -> Sequence[int] | None:
        """Return what the last step that resizes or crops makes."""
        found = [step.get(key) for step in cfg.test_dataloader.dataset.pipeline for key in ('scale', 'crop_size')]
        return next(([number] for number in reversed(found) if isinstance(number, int)), None)


def _reads_training_pictures(scope: str, dataset: Mapping[str, Any]) -> bool:
    """Whether a data set of MNIST's kind is asked for its test pictures in a way that it does not understand."""
    from mmpretrain.datasets import MNIST

    kind = dataset_class(scope, dataset)
    return dataset.get('split') == 'test' and not dataset.get('test_mode') and issubclass(kind or object, MNIST)


def _unloaded(scope: str, dataset: Mapping[str, Any]) -> Any:
    """Return a data set that mmpretrain's `CustomDataset` loads, built but not loaded; None for any other."""
    # What shows or exports a model has no use for them, and they take seconds to import.
    from mmpretrain.datasets import CustomDataset

    kind = dataset_class(scope, dataset)
    if not issubclass(kind or object, CustomDataset) or hasattr(kind, 'inspect'):
        return None
    if any(getattr(kind, name) is not getattr(CustomDataset, name) for name in ('load_data_list', '_find_samples')):
        return None
    try:
        return DATASETS.build({**dataset, 'pipeline': [], 'lazy_init': True})
    except Exception:
        # Training builds it again, and says what is wrong.
        return None
