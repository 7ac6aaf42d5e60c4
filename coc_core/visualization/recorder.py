"""Records the clusters of a model's own features while it runs as usual."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from coc_core.errors import UserError
from coc_core.layers import ClusterMixer
from coc_core.mixers import Clusters, HasClusters
from coc_core.model import ContextCluster
from coc_core.ops.regions import Grid, as_pair

_WAYS = ('forward', 'forward_plain', 'cluster', 'cut', 'join')

Layer = tuple[int, int]
"""The stage and the block of a clustering layer, both from 0."""


@dataclass(frozen=True)
class LayerClusters:
    """The clusters of one layer on one image, without padding.

    Attributes:
        stage: The layer's stage, from 0.
        block: Its block in the stage, from 0.
        stride: Pixels of the network's input along a point's side.
        image_size: Height and width of the image as the network got it, in pixels, without padding.
        map_size: Rows and columns of the whole map of points, with padding.
        region_grid: Regions along each side of the whole map.
        center_grid: Centers along each side of a region, or (rows, columns).
        alpha: Scale of the similarity, or None where the mixer has none, or several.
        beta: Shift of the similarity, likewise.
        assignment: Each point's center within its region, integers [h, w, heads].
        similarity: Of each point to each center of its region, float32 [h, w, heads, centers], or None where it was
            not recorded.
        scale: What the similarity is: ``'cosine'`` in the published layer, else the mixer's word for it.
    """

    stage: int
    block: int
    stride: int
    image_size: tuple[int, int]
    map_size: tuple[int, int]
    region_grid: int
    center_grid: Grid
    alpha: float | None
    beta: float | None
    assignment: NDArray[Any]
    similarity: NDArray[Any] | None = None
    scale: str = 'cosine'

    @property
    def name(self) -> str:
        """``'stage S, block B'``."""
        return f'stage {self.stage}, block {self.block}'

    @property
    def heads(self) -> int:
        """Number of heads."""
        return int(self.assignment.shape[2])

    @property
    def centers(self) -> int:
        """Number of centers in a region."""
        rows, cols = as_pair(self.center_grid, 'center_grid')
        return rows * cols

    def regions(self) -> NDArray[Any]:
        """Return the region of each point, row by row from 0: int64 [h, w]."""
        rows, cols = (size // self.region_grid for size in self.map_size)
        h, w = self.assignment.shape[:2]
        regions: NDArray[Any] = np.arange(h)[:, None] // rows * self.region_grid + np.arange(w) // cols
        return regions

    def clusters(self, head: int) -> NDArray[Any]:
        """Return each point's cluster, numbered over the whole map as region * centers + center: int64 [h, w].

        Raises:
            UserError: There is no such head.
        """
        if not 0 <= head < self.heads:
            raise UserError(f'head {head} does not exist: {self.name} has the heads 0 to {self.heads - 1}.')
        clusters: NDArray[Any] = self.regions() * self.centers + self.assignment[:, :, head]
        return clusters

    def similarity_to(self, cluster: int, head: int) -> NDArray[Any]:
        """Return how similar a cluster's center is to the points of its region: float32 [h, w], NaN elsewhere.

        Args:
            cluster: A number out of `clusters`.
            head: The head.

        Raises:
            UserError: The similarities were not recorded.
        """
        if self.similarity is None:
            raise UserError(f'The similarities of {self.name} were not recorded: record with similarities=True.')
        region, center = divmod(cluster, self.centers)
        found: NDArray[Any] = np.where(self.regions() == region, self.similarity[:, :, head, center], np.nan)
        return found

    def own_similarity(self) -> NDArray[Any]:
        """Return how similar each point is to the center that it belongs to: float32 [h, w, heads].

        Raises:
            UserError: The similarities were not recorded.
        """
        if self.similarity is None:
            raise UserError(f'The similarities of {self.name} were not recorded: record with similarities=True.')
        own: NDArray[Any] = np.take_along_axis(self.similarity, self.assignment[..., None].astype(np.int64), axis=-1)
        return own[..., 0]


class ClusterRecorder:
    """Within its context, keeps who belongs to whom in chosen layers, as of the model's last forward.

    The model computes what it always does: hooks look at the input of the mixers and ask their ``clusters``
    (`coc_core.mixers.HasClusters`), without a gradient::

        with ClusterRecorder(model, stages=[0, -1]) as recorder:
            model(images)
        layers = recorder.clusters(0, image_size=(224, 224))

    Args:
        model: A `ContextCluster`, or a model around one.
        stages: Stages to record, negative ones counted from the end; None for all.
        blocks: Blocks to record in each of these stages, likewise.
        similarities: Keep each point's similarity to every center of its region too.

    Raises:
        UserError: There is no Context Cluster in the model, no such stage or block, or its mixer has no clusters.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        stages: Sequence[int] | None = None,
        blocks: Sequence[int] | None = None,
        similarities: bool = False,
    ) -> None:
        self._strides = find_context_cluster(model).config.strides
        self._mixers: dict[Layer, Any] = dict(cluster_layers(model, stages=stages, blocks=blocks))
        self._similarities = similarities
        self._handles: list[torch.utils.hooks.RemovableHandle] = []
        self._found: dict[Layer, Clusters] = {}

    def __enter__(self) -> ClusterRecorder:
        for layer, mixer in self._mixers.items():
            self._handles.append(mixer.register_forward_hook(partial(self._record, layer)))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    @torch.no_grad()
    def _record(self, layer: Layer, mixer: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        assert isinstance(mixer, HasClusters)
        found = mixer.clusters(inputs[0])
        if not isinstance(found, Clusters):
            raise UserError(f'{type(mixer).__name__}.clusters returned {type(found).__name__}: it returns `Clusters`.')
        self._found[layer] = found if self._similarities else found._replace(similarity=None)

    def clusters(self, image: int = 0, image_size: tuple[int, int] | None = None) -> list[LayerClusters]:
        """Return the recorded layers of one image of the batch, in the order of the network.

        Args:
            image: Its place in the batch.
            image_size: Its height and width in pixels as they are in the network's input, without any padding at the
                bottom and right; None for all that the maps cover.

        Raises:
            UserError: No forward ran within the context.
        """
        if not self._found:
            raise UserError('Nothing is recorded: run the model within the context of the recorder.')
        layers = []
        for layer, found in sorted(self._found.items()):
            mixer = self._mixers[layer]
            assignment, stride = found.center[image], self._strides[layer[0]]
            rows, cols = assignment.shape[:2]
            size = image_size or (rows * stride, cols * stride)
            covered = np.s_[: -(-size[0] // stride), : -(-size[1] // stride)]
            similarity = found.similarity
            layers.append(
                LayerClusters(
                    stage=layer[0],
                    block=layer[1],
                    stride=stride,
                    image_size=size,
                    map_size=(rows, cols),
                    region_grid=mixer.region_grid,
                    center_grid=mixer.center_grid,
                    alpha=_number(mixer, 'sim_alpha'),
                    beta=_number(mixer, 'sim_beta'),
                    assignment=assignment[covered].to(torch.int32).cpu().numpy(),
                    similarity=None if similarity is None else similarity[image][covered].float().cpu().numpy(),
                    scale=found.scale,
                )
            )
        return layers


def _number(mixer: Any, name: str) -> float | None:
    """Return a scalar of a mixer, or None where it has no such, or one for each center or head."""
    values = torch.as_tensor(getattr(mixer, name, ())).detach()
    return float(values) if values.numel() == 1 else None


def find_context_cluster(model: nn.Module) -> ContextCluster:
    """Return the Context Cluster in a model.

    Raises:
        UserError: There is none.
    """
    for module in model.modules():
        if isinstance(module, ContextCluster):
            return module
    raise UserError(f'{type(model).__name__} has no Context Cluster in it: there are no clusters to look at.')


def cluster_layers(
    model: nn.Module, *, stages: Sequence[int] | None = None, blocks: Sequence[int] | None = None
) -> dict[Layer, HasClusters]:
    """Return the clustering layers of a model by stage and block, in the order of the network.

    Args:
        model: A `ContextCluster`, or a model around one.
        stages: Stages to take, negative ones counted from the end; None for all.
        blocks: Blocks to take of each of these stages, likewise.

    Raises:
        UserError: There is no Context Cluster in the model, no such stage or block, or its mixer has no clusters.
    """
    built = find_context_cluster(model).stages
    chosen: dict[Layer, HasClusters] = {}
    for stage in _chosen(stages, len(built), 'stage', 'the model'):
        content: Any = built[stage].blocks
        for block in _chosen(blocks, len(content), 'block', f'stage {stage}'):
            mixer = content[block].mixer
            hidden = _hidden(mixer)
            if hidden:
                raise UserError(f'The mixer of stage {stage}, block {block}, {type(mixer).__name__}, {hidden}.')
            chosen[stage, block] = mixer
    return chosen


def _hidden(mixer: Any) -> str:
    """Return why a mixer's clusters cannot be looked at, in words that follow its name, or ''.

    The stock layer finds them by its own way through the steps: a layer that goes another way might have others.
    """
    if not isinstance(mixer, HasClusters):
        return 'has no clusters to look at: give it a method `clusters` (see coc_core/mixers.py)'
    kinds = [kind for kind in type(mixer).__mro__ if {'clusters', 'find_clusters'} & vars(kind).keys()]
    ways = [name for name in mixer.overridden() if name in _WAYS] if kinds[:1] == [ClusterMixer] else []  # type: ignore[attr-defined]
    if not ways:
        return ''
    return (
        f'overrides {", ".join(ways)}, and the stock method `clusters` may not show what it does: give it its own (see '
        'coc_core/mixers.py), or say `clusters = ClusterMixer.clusters` in it if that one is right'
    )


def _chosen(wanted: Sequence[int] | None, count: int, what: str, owner: str) -> list[int]:
    for index in wanted or ():
        if not -count <= index < count:
            raise UserError(f'{what} {index} does not exist: {owner} has the {what}s 0 to {count - 1}.')
    return sorted({index % count for index in (range(count) if wanted is None else wanted)})
