"""Checkpoints of every origin in mmengine's runner; one of another model is an error, where mmengine only warns."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from mmengine.hooks import Hook
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.runner import Runner

from coc_core import checkpoints
from coc_core.mm.trained_classes import check_trained_classes, reordered_classes


class LoadCheckpointHook(Hook):
    """Loads a checkpoint of any known origin into the runner's model by `coc_core.checkpoints.load_content`.

    Args:
        path: The name that messages give the checkpoint.
        strict: Whether everything must fit; otherwise what does not is named in a warning.
        classes: The names of the classes of the data, by label. A start that need not fit may have others.

    Raises:
        CheckpointError: In ``after_load_checkpoint``, where the checkpoint cannot be read, must fit and does not, or
            gives the classes other labels.
    """

    # After hooks that themselves change the checkpoint, such as EMAHook.
    priority = 'LOWEST'

    def __init__(self, path: str, *, strict: bool = True, classes: Sequence[str] | None = None) -> None:
        self.path = path
        self.strict = strict
        self.classes = classes

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        model = runner.model
        while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
            model = model.module
        compared = check_trained_classes if self.strict else reordered_classes
        if told := compared(checkpoint, self.classes, self.path):
            runner.logger.warning(told)
        report = checkpoints.load_content(model, checkpoint, self.path, strict=self.strict)
        if not report.loaded:
            raise checkpoints.CheckpointError(
                f'load_from: {self.path} ({report.origin}) holds nothing that fits {type(model).__name__}: name a '
                'checkpoint of this model, or set load_from=None to train without it.'
            )
        # Other numbers are what fine-tuning may be for.
        odd = report.problems or (self.strict and report.otherwise)
        runner.logger.log(logging.WARNING if odd else logging.INFO, str(report))
        # What mmengine takes over now, under whatever names the file has.
        checkpoint['state_dict'] = model.state_dict()
