"""Where the pictures of a test go."""

from __future__ import annotations

import os.path as osp
from collections.abc import Sequence
from typing import Any

from mmengine.runner import Runner
from mmpretrain.engine.hooks import VisualizationHook
from mmpretrain.registry import HOOKS

from coc_core.files import folder_below


@HOOKS.register_module()
class FolderedPicturesHook(VisualizationHook):  # type: ignore[misc]
    """Draws the pictures of a test into folders like those of the images.

    mmpretrain's own hook draws them all into one folder, where one image overwrites another of the same name. Its
    arguments are the same.
    """

    def after_test_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict[str, Any], outputs: Sequence[Any]
    ) -> None:
        """Draw those of a batch that the interval chooses, one by one."""
        loader, folder = runner.test_dataloader, self.out_dir
        root = getattr(loader.dataset, 'img_prefix', '')
        for place, (image, sample) in enumerate(zip(data_batch['inputs'], outputs, strict=True)):
            if folder is not None and 'img_path' in sample:
                self.out_dir = osp.join(folder, folder_below(root, sample.img_path))
            # The last batch may be smaller, so that mmpretrain would count its images from another number on.
            self._draw_samples(batch_idx * loader.batch_size + place, {'inputs': [image]}, [sample])
        self.out_dir = folder
