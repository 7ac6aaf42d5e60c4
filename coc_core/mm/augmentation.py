"""Test-time augmentation: what averages over copies of a sample, and the pipeline that makes them."""

from __future__ import annotations

from typing import Any

from mmengine.config import Config

from coc_core.errors import UserError
from coc_core.mm.task import task_of, test_dataset


def augmentation(cfg: Config) -> tuple[dict[str, Any], list[Any]]:
    """Return the config of the model that averages, without the model inside it, and the test pipeline with copies.

    They are the config's ``tta_model`` and ``tta_pipeline``, or what the task's stock tool takes.

    Raises:
        UserError: There are none, or the predictions of this model cannot be averaged.
    """
    task = task_of(cfg)
    task.check_augmentation(cfg)
    model = cfg.get('tta_model') or task.tta_model
    pipeline = cfg.get('tta_pipeline') or task.tta_pipeline(test_dataset(cfg).pipeline)
    if not model or not pipeline:
        raise UserError('--tta: this config sets no tta_model and tta_pipeline, and its task has no default.')
    return dict(model), list(pipeline)
