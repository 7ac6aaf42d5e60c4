"""Classification in the tools: what mmpretrain's own scripts do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

from mmengine.config import Config
from torch import nn

from coc_core.checkpoints.layouts import CLASSIFICATION
from coc_core.mm.task import Task, visualization_hook

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

    def tta_pipeline(self, pipeline: Sequence[Any]) -> list[Any]:
        """Return the pipeline with each image as it is and flipped."""
        *steps, pack = deepcopy(list(pipeline))
        return [*steps, dict(type='TestTimeAug', transforms=[deepcopy(_FLIPS), [pack]])]

    def show_predictions(
        self, cfg: Config, *, window: bool, folder: str | None, interval: int, wait_time: float
    ) -> None:
        """Have mmpretrain's hook draw every ``interval``-th image."""
        visualization_hook(cfg).update(enable=True, show=window, wait_time=wait_time, out_dir=folder, interval=interval)

    def exported_part(self, model: nn.Module) -> tuple[nn.Module, list[str]]:
        """Return the whole classifier."""
        return model, ['logits']

    def tested_size(self, cfg: Config) -> Sequence[int] | None:
        """Return what the last step that resizes or crops makes."""
        found = [step.get(key) for step in cfg.test_dataloader.dataset.pipeline for key in ('scale', 'crop_size')]
        return next(([number] for number in reversed(found) if isinstance(number, int)), None)
