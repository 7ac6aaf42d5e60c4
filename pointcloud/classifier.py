"""The point-cloud classifier in mmengine: trunk, head, and what goes between them and a runner."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.model import BaseModel, BaseTTAModel
from mmengine.structures import BaseDataElement
from torch import Tensor, nn

from coc_core.errors import UserError
from pointcloud.registry import MODELS


@MODELS.register_module()
class PointClsHead(nn.Module):
    """Linear, BatchNorm, ReLU and dropout for each hidden width, then Linear to the classes.

    Args:
        in_channels: Channels of the features.
        num_classes: Number of classes.
        hidden: Widths of the hidden layers.
        dropout: Probability that a hidden value is zeroed in training.
        label_smoothing: Part of the target that the other classes share, 1 - it being left to the sample's class.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        hidden: Sequence[int] = (512, 256),
        dropout: float = 0.5,
        label_smoothing: float = 0.2,
    ) -> None:
        super().__init__()
        if num_classes < 2:
            raise UserError(f'num_classes={num_classes} must be at least 2.')
        self.num_classes = num_classes
        self.label_smoothing = label_smoothing
        layers: list[nn.Module] = []
        for before, after in pairwise((in_channels, *hidden)):
            layers += [nn.Linear(before, after), nn.BatchNorm1d(after), nn.ReLU(), nn.Dropout(dropout)]
        self.layers = nn.Sequential(*layers, nn.Linear((in_channels, *hidden)[-1], num_classes))

    def forward(self, features: Tensor) -> Tensor:
        """[B, C] -> logits [B, num_classes]."""
        logits: Tensor = self.layers(features)
        return logits

    def loss(self, features: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Cross entropy with 1 - label_smoothing on the class and the rest shared by the others (published: 0.2)."""
        # PyTorch shares its smoothing among all classes, the sample's own included.
        smoothing = self.label_smoothing * self.num_classes / (self.num_classes - 1)
        return {'loss': F.cross_entropy(self(features), labels, label_smoothing=smoothing)}


@MODELS.register_module()
class PointCloudClassifier(BaseModel):
    """Classifies clouds of points.

    Args:
        backbone: Config of the trunk, ``dict(type='PointMLP', arch='pointmlp_coc')``.
        head: Config of the head; ``in_channels`` comes from the trunk.
        data_preprocessor: See mmengine's `BaseModel`.
        init_cfg: See mmengine's `BaseModel`.
    """

    def __init__(
        self,
        backbone: Mapping[str, Any],
        head: Mapping[str, Any],
        data_preprocessor: Mapping[str, Any] | None = None,
        init_cfg: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(data_preprocessor, init_cfg)
        self.backbone = MODELS.build(backbone)
        self.head = MODELS.build({'in_channels': self.backbone.config.dims[-1], **head})

    def forward(
        self, inputs: Tensor, data_samples: list[BaseDataElement] | None = None, mode: str = 'tensor'
    ) -> Tensor | dict[str, Tensor] | list[BaseDataElement]:
        """Run in one of mmengine's modes.

        Args:
            inputs: Coordinates, floating, [B, N, 3].
            data_samples: One per cloud, with ``gt_label`` (int64 [1]) where ``mode`` is ``'loss'``.
            mode: ``'tensor'``, ``'loss'`` or ``'predict'``.

        Returns:
            Logits [B, num_classes]; the losses by name; or the samples with ``pred_scores`` [num_classes] added.
        """
        features = self.backbone(inputs)
        if mode == 'tensor':
            logits: Tensor = self.head(features)
            return logits
        if mode not in ('loss', 'predict') or data_samples is None:
            raise UserError(f"mode={mode!r} must be 'tensor', or 'loss' or 'predict' with data_samples.")
        if mode == 'loss':
            losses: dict[str, Tensor] = self.head.loss(features, torch.cat([s.gt_label for s in data_samples]))
            return losses
        for sample, scores in zip(data_samples, self.head(features).softmax(dim=-1), strict=True):
            sample.pred_scores = scores
        return data_samples


@MODELS.register_module()
class VotingTTA(BaseTTAModel):
    """Averages the scores of a cloud's augmented copies (``tools/test.py --tta``)."""

    def merge_preds(self, data_samples_list: list[list[BaseDataElement]]) -> list[BaseDataElement]:
        """Return the first copy of each cloud with the mean of all copies' scores."""
        merged = []
        for copies in data_samples_list:
            sample = copies[0]
            sample.pred_scores = torch.stack([copy.pred_scores for copy in copies]).mean(dim=0)
            merged.append(sample)
        return merged


def create_model(name: str, *, num_classes: int = 15, **overrides: Any) -> PointCloudClassifier:
    """Return a published classifier with fresh weights: coordinates [B, N, 3] -> logits [B, num_classes].

    Args:
        name: ``'pointmlp_coc'``, ``'pointmlp'`` or ``'pointmlp_elite'``.
        num_classes: Number of classes (15 in ScanObjectNN).
        **overrides: Fields of ``PointMLPConfig`` to replace.

    Raises:
        UserError: The name or a field is unknown, or a value is impossible.
    """
    backbone = dict(type='PointMLP', arch=name, **overrides)
    return PointCloudClassifier(backbone, dict(type='PointClsHead', num_classes=num_classes))
