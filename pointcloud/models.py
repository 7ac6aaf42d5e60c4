"""PointMLP with and without clustering layers."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from coc_core.checkpoints.differences import KeepsArguments
from coc_core.errors import UserError
from pointcloud.layers import Stage
from pointcloud.norm import PointNorm
from pointcloud.registry import MODELS
from pointcloud.variants import PointMLPConfig, get_config


@MODELS.register_module()
class PointMLP(KeepsArguments, nn.Module):
    """The trunk of a point-cloud model (Ma et al., 2022; with clustering layers: Context Cluster, section 4.4).

    Args:
        arch: A variant's name.
        **overrides: Fields of `PointMLPConfig` to replace, for example ``embed_dim=32``.

    Raises:
        UserError: An argument is unknown or impossible.
    """

    override_names = frozenset(field.name for field in fields(PointMLPConfig))
    """What ``**overrides`` takes, for those who check a config before anything is built."""

    def __init__(self, arch: str, **overrides: Any) -> None:
        super().__init__()
        self.config = get_config(arch).override(**overrides)
        config = self.config
        self.linear = nn.Linear(3, config.embed_dim, bias=False)
        self.norm = PointNorm(config.embed_dim)
        self.stages = nn.ModuleList(
            Stage(
                config.dims[i],
                config.dims[i + 1],
                anchors=config.anchors[i],
                neighbors=config.neighbors,
                pre_blocks=config.pre_blocks[i],
                post_blocks=config.post_blocks[i],
                residual_expansion=config.residual_expansion,
                clustering=config.clustering,
            )
            for i in range(len(config.anchors))
        )

    def forward(self, points: Tensor) -> Tensor:
        """Coordinates [B, N, 3] -> features [B, C].

        Raises:
            UserError: ``points`` has another shape, or fewer points than a group.
        """
        if points.ndim != 3 or points.shape[-1] != 3:
            raise UserError(f'points must be [B, N, 3]; got shape {list(points.shape)}.')
        x = F.relu(self.norm(self.linear(points).flatten(0, 1))).view(*points.shape[:2], -1)
        for stage in self.stages:
            points, x = stage(points, x)
        return x.max(dim=1).values
