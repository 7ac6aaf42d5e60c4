"""The place where class weights meet pixels that count for nothing."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmseg.registry import MODELS
from torch import Tensor, nn
from torch.nn import functional as F


@MODELS.register_module()
class WeightedCrossEntropyLoss(nn.Module):
    """Cross entropy with a weight for each class, averaged over the weights of the pixels that count.

    In float32 mmseg's CrossEntropyLoss computes the same in the OneDL family. In the upstream family (mmseg 1.2.2) it
    looks up class weights by the label of ignored pixels too, 255, and stops with an IndexError. In both it adds the
    weights in the scores' dtype: on a CPU in float16 the sum becomes infinite and the loss 0.

    Args:
        class_weight: One weight for each class.
        loss_weight: A factor of the loss.
        loss_name: Its name in the log; mmseg trains on what begins with ``loss_``.
    """

    def __init__(self, class_weight: Sequence[float], loss_weight: float = 1.0, loss_name: str = 'loss_ce') -> None:
        super().__init__()
        self.class_weight = tuple(class_weight)
        self.loss_weight = loss_weight
        self.loss_name = loss_name

    def forward(
        self, cls_score: Tensor, label: Tensor, weight: Tensor | None = None, ignore_index: int = -100
    ) -> Tensor:
        """Scores [B, K, H, W], labels [B, H, W] and weights of pixels [B, H, W] -> the loss."""
        # float16 ends at 65,504, fewer than the pixels of a batch.
        scores = cls_score.float()
        class_weight = scores.new_tensor(self.class_weight)
        losses = F.cross_entropy(scores, label, class_weight, ignore_index=ignore_index, reduction='none')
        if weight is not None:
            losses = losses * weight
        total = class_weight[label[label != ignore_index]].sum()
        # Where no pixel counts, the loss is 0.
        return self.loss_weight * losses.sum() / (total + torch.finfo(torch.float32).eps)
