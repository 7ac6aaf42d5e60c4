"""Where the pictures of a test go."""

from __future__ import annotations

import os.path as osp
from collections.abc import Sequence
from typing import Any

from mmdet.engine.hooks import DetVisualizationHook
from mmdet.registry import HOOKS
from mmengine.runner import Runner

from coc_core.files import folder_below


@HOOKS.register_module()
class FolderedDetPicturesHook(DetVisualizationHook):  # type: ignore[misc]
    """Draws the pictures of a test into folders like those of the images.

    mmdet's own hook draws them all into one folder, where one image overwrites another of the same name. Its arguments
    are the same.
    """

    def after_test_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict[str, Any], outputs: Sequence[Any]
    ) -> None:
        """Draw the images of a batch, one by one."""
        folder = self.test_out_dir
        root = (getattr(runner.test_dataloader.dataset, 'data_prefix', None) or {}).get('img', '')
        for sample in outputs:
            if folder is not None:
                self.test_out_dir = osp.join(folder, folder_below(root, sample.img_path))
            super().after_test_iter(runner, batch_idx, data_batch, [sample])
        self.test_out_dir = folder
