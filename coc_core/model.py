"""The Context Cluster backbone (Image as Set of Points, ICLR 2023): stem, stages, and the two kinds of output."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.fx
from timm.layers import calculate_drop_path_rates
from timm.models import checkpoint_seq
from torch import Tensor, nn

from coc_core.errors import UserError
from coc_core.images import append_coordinates, check_images, in_channels_last, pad_to_multiple
from coc_core.layers import (
    ClusterMixer,
    ContextClusterBlock,
    MapNorm,
    init_linear,
    refuse_torchscript,
    to_channels_first,
    to_channels_last,
)
from coc_core.mixers import MixerFactory, build_mixer
from coc_core.variants import STEM_STRIDE, CoCConfig, get_config

# torch.fx records a call of these as one node and does not look inside, where sizes decide.
for _name in ('append_coordinates', 'check_images', 'in_channels_last', 'pad_to_multiple'):
    torch.fx.wrap(_name)


class Stage(nn.Module):
    """A 3x3 convolution of stride 2 (all stages but the first), then blocks at one resolution.

    Args:
        config: The architecture.
        index: Which of its stages this is.
        drop_paths: Stochastic depth of each block.
        mixer: Builds the mixer of each block, see `coc_core.mixers.build_mixer`.
    """

    def __init__(self, config: CoCConfig, index: int, drop_paths: Sequence[float], mixer: MixerFactory) -> None:
        super().__init__()
        dim = config.dims[index]
        self.grad_checkpointing = False
        self.downsample = (
            nn.Conv2d(config.dims[index - 1], dim, kernel_size=3, stride=2, padding=1) if index else nn.Identity()
        )
        self.blocks = nn.Sequential(
            *(
                ContextClusterBlock(
                    dim,
                    build_mixer(mixer, config, index),
                    mlp_ratio=config.mlp_ratios[index],
                    layer_scale_init=config.layer_scale_init,
                    drop_path=drop_path,
                    impl=config.impl,
                )
                for drop_path in drop_paths
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        """[B, H, W, C] -> [B, H', W', C'], halved (rounding up) but in the first stage."""
        x = to_channels_last(self.downsample(to_channels_first(x)))
        if self.grad_checkpointing and self.training:
            checkpointed: Tensor = checkpoint_seq(self.blocks, x)
            return checkpointed
        out: Tensor = self.blocks(x)
        return out


class ContextCluster(nn.Module):
    """Context Cluster, as a classifier or as a dense backbone.

    Args:
        config: The architecture.
        num_classes: Classes of the head; 0 leaves the head out.
        drop_rate: Dropout before the head.
        global_pool: ``'avg'``, the mean over positions, or ``''`` to leave out the pooling (with ``num_classes=0``).
        dense_indices: When not empty, the model is a dense backbone: `forward_dense` returns these stages, each
            through a norm of its own; there is no classification norm or head, and stages after the last of these
            are not built.
        mixer: What mixes the points in each block: a class or another callable, see `coc_core.mixers`; None for the
            clustering layer, `coc_core.layers.ClusterMixer`.

    Raises:
        UserError: A stage index does not exist, or the mixer cannot be built.
    """

    __prepare_scriptable__ = refuse_torchscript

    def __init__(
        self,
        config: CoCConfig,
        *,
        num_classes: int = 1000,
        drop_rate: float = 0.0,
        global_pool: str = 'avg',
        dense_indices: Sequence[int] = (),
        mixer: MixerFactory | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        mixer = ClusterMixer if mixer is None else mixer
        self.size_divisibility = config.size_divisibility
        self.dense_indices = resolve_indices(dense_indices, config.num_stages)
        num_stages = max(self.dense_indices, default=config.num_stages - 1) + 1
        self.feature_info = [
            {'num_chs': dim, 'reduction': stride, 'module': f'stages.{i}'}
            for i, (dim, stride) in enumerate(zip(config.dims, config.strides, strict=True))
        ][:num_stages]
        self.num_features = self.head_hidden_size = config.dims[num_stages - 1]

        self.stem = nn.Conv2d(config.in_channels + 2, config.dims[0], kernel_size=STEM_STRIDE, stride=STEM_STRIDE)
        drop_paths = calculate_drop_path_rates(config.drop_path_rate, list(config.depths), stagewise=True)
        self.stages = nn.ModuleList(Stage(config, i, drop_paths[i], mixer) for i in range(num_stages))
        # What checkpoints may call the mixer.
        self.mixer_names = {type(module.mixer).__name__ for module in self.modules() if hasattr(module, 'mixer')}
        self.mixer_arguments = dict(getattr(mixer, 'keywords', {}))
        self.head_drop = nn.Dropout(drop_rate)
        if self.dense_indices:
            self.dense_norms = nn.ModuleDict(
                {str(i): MapNorm(config.dims[i], impl=config.impl) for i in self.dense_indices}
            )
            self.norm: nn.Module = nn.Identity()
            num_classes = 0
        else:
            self.norm = MapNorm(self.num_features, impl=config.impl)
        self.reset_classifier(num_classes, global_pool)

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the head by a fresh one for ``num_classes`` classes; 0 removes it.

        Args:
            num_classes: Classes.
            global_pool: ``'avg'``, ``''`` for none, or None to leave the pooling as it is.

        Raises:
            UserError: ``num_classes`` is negative, the pooling is not known, or is left out before a head.
        """
        if num_classes < 0:
            raise UserError(f'num_classes={num_classes} must not be negative.')
        if global_pool not in (None, '', 'avg'):
            raise UserError(f"global_pool={global_pool!r} is unknown: choose 'avg', the mean, or '' for none.")
        global_pool = self.global_pool if global_pool is None else global_pool
        if num_classes and not global_pool:
            raise UserError(f"global_pool='' leaves no vector for a head of num_classes={num_classes}: set it to 0.")
        if num_classes and self.dense_indices:
            raise UserError(f'A dense backbone (dense_indices={self.dense_indices}) has no classifier.')
        self.num_classes = num_classes
        self.global_pool: str = global_pool
        self.head: nn.Module = nn.Identity()
        if num_classes:
            self.head = nn.Linear(self.num_features, num_classes).to(self.stem.weight)
            init_linear(self.head)

    def get_classifier(self) -> nn.Module:
        """Return the head."""
        return self.head

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute the blocks' activations in backward instead of keeping them."""
        for stage in self.stages:
            stage.grad_checkpointing = enable  # type: ignore[assignment]

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Patterns that sort parameters into layers, for layer-wise learning rates (timm's convention)."""
        blocks: list[tuple[str, tuple[int] | None]] = [(r'^stages\.(\d+)', None)]
        if not coarse:
            # A downsampling layer goes with the first block behind it.
            blocks = [(r'^stages\.(\d+)\.downsample', (0,)), (r'^stages\.(\d+)\.blocks\.(\d+)', None)]
        # timm's number for "the same layer as what precedes".
        return {'stem': r'^stem', 'blocks': [*blocks, (r'^(?:norm|dense_norms)', (99999,))]}

    def stage_maps(self, images: Tensor) -> Iterator[Tensor]:
        """Yield the output of each stage, channels-last over the padded image: [B, H', W', C].

        Raises:
            UserError: The images are not floating [B, in_channels, H, W] with both sides at least 4.
        """
        check_images(images, self.config.in_channels, STEM_STRIDE)
        images = append_coordinates(pad_to_multiple(images, self.size_divisibility))
        x = to_channels_last(self.stem(in_channels_last(images)))
        for stage in self.stages:
            x = stage(x)
            yield x

    def _crop(self, x_BHWC: Tensor, images: Tensor, stage: int) -> Tensor:
        """Cut the padding off a stage's output."""
        stride = self.config.strides[stage]
        return x_BHWC[:, : -(-images.shape[-2] // stride), : -(-images.shape[-1] // stride)]

    def forward_features(self, images: Tensor) -> Tensor:
        """Return the normalized map of the last stage, [B, dims[-1], ceil(H / stride), ceil(W / stride)].

        Raises:
            UserError: See `stage_maps`.
        """
        *_, x = self.stage_maps(images)
        return to_channels_first(self._crop(self.norm(x), images, len(self.stages) - 1))

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        """[B, C, h, w] -> logits [B, num_classes], or the pooled features [B, C] before the head."""
        pooled = self.head_drop(features.mean(dim=(2, 3)) if self.global_pool else features)
        logits: Tensor = pooled if pre_logits else self.head(pooled)
        return logits

    def forward(self, images: Tensor) -> Tensor:
        """[B, in_channels, H, W] -> logits [B, num_classes].

        Raises:
            UserError: See `stage_maps`.
        """
        return self.forward_head(self.forward_features(images))

    def forward_dense(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the normalized map of each stage in ``dense_indices``, [B, C, ceil(H / stride), ceil(W / stride)].

        Raises:
            UserError: The model was built without ``dense_indices``, or see `stage_maps`.
        """
        if not self.dense_indices:
            raise UserError('This model is a classifier: build it with dense_indices=(0, 1, 2, 3) for dense outputs.')
        return tuple(
            to_channels_first(self._crop(self.dense_norms[str(i)](x), images, i))
            for i, x in enumerate(self.stage_maps(images))
            if i in self.dense_indices
        )

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | Sequence[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = 'NCHW',
        intermediates_only: bool = False,
    ) -> Any:
        """Return the outputs of chosen stages, cropped to ceil(size / stride) (timm's signature).

        Args:
            x: Images, [B, in_channels, H, W].
            indices: Stages; an int n means the last n, None all. Negative ones count from the end.
            norm: Apply the final norm to the last stage's output.
            stop_early: Skip the stages after the last chosen one (only with ``intermediates_only``).
            output_fmt: ``'NCHW'`` or ``'NHWC'``.
            intermediates_only: Return the list alone instead of (final features, list).

        Raises:
            UserError: An index or format does not exist, or see `stage_maps`.
        """
        if output_fmt not in ('NCHW', 'NHWC'):
            raise UserError(f"output_fmt={output_fmt!r} must be 'NCHW' or 'NHWC'.")
        count = len(self.stages)
        chosen = resolve_indices(range(-indices, 0) if isinstance(indices, int) else indices, count)
        intermediates = []
        for i, stage_map in enumerate(self.stage_maps(x)):
            if i in chosen:
                output = self._crop(self.norm(stage_map) if norm and i == count - 1 else stage_map, x, i)
                intermediates.append(to_channels_first(output) if output_fmt == 'NCHW' else output)
            if stop_early and intermediates_only and i == max(chosen):
                break
        if intermediates_only:
            return intermediates
        return to_channels_first(self._crop(self.norm(stage_map), x, count - 1)), intermediates

    def prune_intermediate_layers(
        self, indices: int | Sequence[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Drop the stages after the last of ``indices``, norm and head (timm's signature); return the indices."""
        chosen = resolve_indices(range(-indices, 0) if isinstance(indices, int) else indices, len(self.stages))
        self.stages = self.stages[: max(chosen) + 1]
        if prune_norm:
            self.norm = nn.Identity()
        if prune_head:
            self.reset_classifier(0)
        return list(chosen)


def resolve_indices(indices: Sequence[int] | None, num_stages: int) -> tuple[int, ...]:
    """Return stage indices in rising order, negative ones counted from the end; None means every stage.

    Raises:
        UserError: An index does not exist or is given twice.
    """
    given = list(range(num_stages) if indices is None else indices)
    resolved = sorted(i + num_stages if i < 0 else i for i in given)
    if len(set(resolved)) != len(resolved) or any(not 0 <= i < num_stages for i in resolved):
        raise UserError(f'Stage indices {given} must be distinct and lie between 0 and {num_stages - 1}.')
    return tuple(resolved)


def create_model(
    name: str, *, num_classes: int = 1000, mixer: MixerFactory | None = None, **overrides: Any
) -> ContextCluster:
    """Build a published variant, randomly initialized.

    Args:
        name: A key of `coc_core.VARIANTS`.
        num_classes: Classes of the head; 0 leaves the head out.
        mixer: A class of your own in the place of the clustering layer, see `coc_core.mixers`; arguments of its own
            are bound by `functools.partial`.
        **overrides: Fields of `CoCConfig` to replace.

    Raises:
        UserError: The variant, a field or an argument of the mixer is unknown, or a value is impossible.
    """
    return ContextCluster(get_config(name).override(**overrides), num_classes=num_classes, mixer=mixer)
