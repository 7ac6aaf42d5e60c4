"""The data preprocessor that augments."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from mmpretrain.models import ClsDataPreprocessor
from mmpretrain.registry import MODELS

from coc_core.errors import UserError
from mmpretrain_plugin.device_augmentation.erasing import BatchErasing
from mmpretrain_plugin.device_augmentation.rand_augment import BatchRandAugment


@MODELS.register_module()
class AugmentingDataPreprocessor(ClsDataPreprocessor):  # type: ignore[misc]
    """mmpretrain's ``ClsDataPreprocessor``, which first augments what it gets in training.

    The order is that of the pipeline: RandAugment, erasing, and then, on normalized images, mixup or CutMix, which
    mmpretrain's class does already. In validation, test and prediction it is mmpretrain's class.

    Args:
        rand_augment: Arguments of `BatchRandAugment`; by default there is no such step.
        erasing: Arguments of mmpretrain's ``RandomErasing``; by default there is no such step.
        **options: Arguments of ``ClsDataPreprocessor``.

    Raises:
        UserError: An argument of a step is wrong.
    """

    def __init__(
        self,
        *,
        rand_augment: Mapping[str, Any] | None = None,
        erasing: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.steps = [
            step(**arguments)
            for step, arguments in ((BatchRandAugment, rand_augment), (BatchErasing, erasing))
            if arguments is not None
        ]

    def forward(self, data: dict[str, Any], training: bool = False) -> dict[str, Any]:
        """Return a batch as the model takes it; see mmpretrain's class.

        Args:
            data: ``inputs``, in training uint8 images [B, 3, H, W], and ``data_samples``.
            training: Whether to augment.

        Raises:
            UserError: In training the images are no such tensor.
        """
        if training and self.steps:
            images = self.cast_data(data['inputs'])
            if not isinstance(images, torch.Tensor) or images.dtype != torch.uint8 or images.shape[1] != 3:
                raise UserError(
                    'data_preprocessor.type=AugmentingDataPreprocessor trains on uint8 images of three colors and one '
                    "size: give the pipeline a crop, and the data loader collate_fn=dict(type='default_collate')."
                )
            # Half precision does not hold what the steps round to bytes.
            with torch.autocast(images.device.type, enabled=False):
                for step in self.steps:
                    images = step(images)
            data = {**data, 'inputs': images}
        return super().forward(data, training)  # type: ignore[no-any-return]
