"""Where a classifier finds a class: Grad-CAM, by the package grad-cam, on the last map before the mean."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from coc_core.errors import UserError
from coc_core.visualization.recorder import find_context_cluster


def check_library() -> None:
    """Raise UserError unless grad-cam is installed."""
    if find_spec('pytorch_grad_cam') is None:
        raise UserError('Grad-CAM needs the package grad-cam: run `pip install grad-cam`.')


def class_activation(model: nn.Module, inputs: Tensor, label: int) -> NDArray[Any]:
    """Return how much each pixel's surroundings speak for a class: float32 [H, W], from 0 to 1.

    Args:
        model: A classifier, ``model(inputs) -> logits``, with a Context Cluster in it; gradients of its parameters
            are gone afterwards.
        inputs: The network's input, one image: [1, C, H, W].
        label: The class.

    Raises:
        UserError: grad-cam is not installed.
    """
    check_library()
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    trunk = find_context_cluster(model)
    stride = trunk.config.strides[-1]
    rows, columns = (-(-side // stride) for side in inputs.shape[-2:])

    def channels_first(x_BHWC: Tensor) -> Tensor:
        # The norm sees the padding too, which is no part of the picture.
        return x_BHWC[:, :rows, :columns].permute(0, 3, 1, 2)

    camera = GradCAM(model, [trunk.norm], reshape_transform=channels_first)
    try:
        with torch.enable_grad():
            (found,) = camera(inputs, [ClassifierOutputTarget(label)])
    finally:
        camera.activations_and_grads.release()
        model.zero_grad()
    activation: NDArray[Any] = found
    return activation


def paint_activation(image: NDArray[Any], activation: NDArray[Any]) -> NDArray[Any]:
    """Paint an activation, [H, W] from 0 to 1, over its image from dark blue to yellow: uint8 [H, W, 3]."""
    from pytorch_grad_cam.utils.image import show_cam_on_image

    painted: NDArray[Any] = show_cam_on_image(
        np.float32(image) / 255, activation, use_rgb=True, colormap=cv2.COLORMAP_CIVIDIS
    )
    return painted
