"""Records how alike the points of groups are to their centers while a point-cloud model runs as usual."""

from __future__ import annotations

from dataclasses import dataclass
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

from coc_core.errors import UserError
from coc_core.steps import own_methods
from pointcloud.layers import ClusterBlock, Stage


@dataclass(frozen=True)
class GroupSimilarities:
    """What a clustering layer makes of a cloud: every group has one center, so that all there is to see is likeness.

    Attributes:
        coordinates: The points that the stage groups, floating [N, 3].
        members: Which of them are in each group, int64 [S, K].
        similarity: Cosine of each member with its group's center, floating [S, K].
    """

    coordinates: Tensor
    members: Tensor
    similarity: Tensor

    def of_points(self) -> Tensor:
        """Return each point's mean cosine over the groups that it is in, NaN where it is in none: [N]."""
        count = self.coordinates.shape[0]
        sums, times = (
            self.similarity.new_zeros(count).index_add(0, self.members.flatten(), values.flatten())
            for values in (self.similarity, torch.ones_like(self.similarity))
        )
        # 0 / 0 is NaN.
        return sums / times


class GroupSimilarityRecorder:
    """Within its context, keeps the similarities of one clustering layer, as of the model's last forward.

    Args:
        model: A model around a ``PointMLP`` trunk with clustering layers.
        stage: The stage, negative from the end.
        block: Which of its clustering layers, likewise.

    Raises:
        UserError: The model has no clustering layers, no such stage or block, or the layer has its own ``forward`` with
            the stock ``similarities``.
    """

    def __init__(self, model: nn.Module, stage: int, block: int) -> None:
        stages = [module for module in model.modules() if isinstance(module, Stage)]
        if not -len(stages) <= stage < len(stages):
            raise UserError(f'stage {stage} does not exist: the model has the stages 0 to {len(stages) - 1}.')
        self._stage = stages[stage]
        blocks = [module for module in self._stage.pre_blocks if isinstance(module, ClusterBlock)]
        if not blocks:
            raise UserError('The model has no clustering layers: there are no similarities to look at.')
        if not -len(blocks) <= block < len(blocks):
            raise UserError(f'block {block} does not exist: stage {stage} has the blocks 0 to {len(blocks) - 1}.')
        self._block = blocks[block]
        kinds = [kind for kind in type(self._block).__mro__ if 'similarities' in vars(kind)]
        if kinds[0] is ClusterBlock and own_methods(self._block, {'forward': ClusterBlock.forward}):
            name = type(self._block).__name__
            raise UserError(
                f'{name} overrides forward, and the stock method `similarities` may not show what it does: give it its '
                'own, or say `similarities = ClusterBlock.similarities` in it if that one is right.'
            )
        self._handles: list[torch.utils.hooks.RemovableHandle] = []
        self._coordinates: Tensor | None = None
        self._similarity: Tensor | None = None

    def __enter__(self) -> GroupSimilarityRecorder:
        self._handles = [
            self._stage.register_forward_hook(self._keep_coordinates),
            self._block.register_forward_hook(self._keep_similarity),
        ]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for handle in self._handles:
            handle.remove()

    def _keep_coordinates(self, stage: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        self._coordinates = inputs[0].detach()

    @torch.no_grad()
    def _keep_similarity(self, block: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        self._similarity = self._block.similarities(inputs[0])

    def similarities(self, cloud: int = 0) -> GroupSimilarities:
        """Return what was recorded of one cloud of the batch.

        Raises:
            UserError: No forward ran within the context.
        """
        if self._coordinates is None or self._similarity is None:
            raise UserError('Nothing is recorded: run the model within the context of the recorder.')
        coordinates = self._coordinates[cloud]
        _, members = self._stage.group(coordinates[None])
        return GroupSimilarities(coordinates, members[0], self._similarity[cloud])
