"""Context Cluster as an OpenMMLab backbone: the one adapter behind all plugins."""

from __future__ import annotations

import os.path as osp
from collections.abc import Mapping, Sequence
from dataclasses import fields
from functools import partial
from typing import Any

from mmengine.logging import MMLogger
from mmengine.model import BaseModule
from mmengine.registry import MODELS
from mmengine.runner import CheckpointLoader
from torch import Tensor, nn

from coc_core import checkpoints
from coc_core.checkpoints.differences import KeepsArguments
from coc_core.errors import UserError
from coc_core.mixers import MixerFactory
from coc_core.mm.safe_loading import install_safe_loader
from coc_core.model import ContextCluster, resolve_indices
from coc_core.variants import CoCConfig, get_config

OUTPUT_NORMS = ('dense', 'classification')


class OutputMap(nn.LayerNorm):
    """An output, [B, C, H, W], as it is: a place for hooks of tools that take every map for NCHW.

    Inside, maps are channels-last. It has no parameters and changes nothing; it is a norm because mmpretrain's
    ``vis_cam.py`` looks at the last norm of a backbone where the user names no layer.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, elementwise_affine=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the map."""
        return x

    def extra_repr(self) -> str:
        """Shown by ``print(model)``."""
        return f'{self.normalized_shape[0]}, a map [B, C, H, W] as it is'


class ContextClusterBackbone(KeepsArguments, ContextCluster, BaseModule):  # type: ignore[misc]
    """``dict(type='ContextCluster', arch='coc_small', ...)`` in mmpretrain, mmdet and mmseg.

    Args:
        arch: A variant's name, or a dict of all `CoCConfig` fields without a default.
        out_indices: Stages to return.
        output_norm: ``'dense'``: every output has a fresh norm of its own. ``'classification'``: the last stage goes
            through the norm of the ImageNet classifier, other stages are returned as they are.
        frozen_stages: -1 trains everything; 0 freezes the stem; n freezes the stem and the first n stages. Frozen
            parts get no gradient and stay in evaluation mode; the norms of the outputs are trained all the same.
        mixer: A mixer of your own in the place of the clustering layer, ``dict(type='MyMixer', temperature=2.0)``: a
            name in a registry of models (or a class) and arguments beside the numbers of its stage (`coc_core.mixers`).
        grad_checkpointing: Recompute activations in backward to save memory.
        init_cfg: mmengine's initialization. ``dict(type='Pretrained', checkpoint=..., prefix=...)`` loads strictly:
            every weight but the fresh dense norms must come from the file, this project's or a published one of
            any task (`coc_core.checkpoints.load`); ``fresh_mixers=True`` lets those that only this mixer has start
            fresh.
        **overrides: Fields of `CoCConfig` to replace, for example ``center_grid=5`` or ``drop_path_rate=0.1``.

    Raises:
        UserError: An argument is unknown or impossible.
    """

    override_names = frozenset(field.name for field in fields(CoCConfig))
    """What ``**overrides`` takes, for those who check a config before anything is built."""

    def __init__(
        self,
        arch: str | Mapping[str, Any],
        *,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        output_norm: str = 'dense',
        frozen_stages: int = -1,
        mixer: Mapping[str, Any] | None = None,
        grad_checkpointing: bool = False,
        init_cfg: Mapping[str, Any] | None = None,
        **overrides: Any,
    ) -> None:
        if output_norm not in OUTPUT_NORMS:
            raise UserError(f'output_norm={output_norm!r} is unknown: choose one of {", ".join(OUTPUT_NORMS)}.')
        config = get_config(arch).override(**overrides)
        self_indices = resolve_indices(out_indices, config.num_stages)
        if output_norm == 'classification' and self_indices[-1:] != (config.num_stages - 1,):
            raise UserError(
                f'out_indices={tuple(out_indices)} must contain the last stage {config.num_stages - 1} '
                "when output_norm='classification'."
            )
        if not -1 <= frozen_stages <= config.num_stages:
            raise UserError(f'frozen_stages={frozen_stages} must lie between -1 and {config.num_stages}.')
        dense_indices = self_indices if output_norm == 'dense' else ()
        factory = None if mixer is None else _mixer_factory(mixer)
        super().__init__(config, num_classes=0, dense_indices=dense_indices, mixer=factory)
        self.out_indices = self_indices
        self.outputs = nn.ModuleDict({str(i): OutputMap(config.dims[i]) for i in self_indices})
        self.frozen_stages = frozen_stages
        if mixer is not None and isinstance(mixer['type'], str):
            self.mixer_names.add(mixer['type'].rpartition('.')[2])
        self.init_cfg = dict(init_cfg) if init_cfg is not None else None
        self.set_grad_checkpointing(grad_checkpointing)
        for module in self._frozen_modules():
            module.requires_grad_(False)

    def _frozen_modules(self) -> list[nn.Module]:
        return [self.stem, *self.stages[: self.frozen_stages]] if self.frozen_stages >= 0 else []

    def train(self, mode: bool = True) -> ContextClusterBackbone:
        """Set training mode, except for the frozen stages; return self."""
        super().train(mode)
        for module in self._frozen_modules():
            module.eval()
        return self

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        """[B, in_channels, H, W] -> one map [B, C, ceil(H / stride), ceil(W / stride)] per output."""
        if self.dense_indices:
            # mmcv's compiled operators (RoIAlign and others) read memory as NCHW whatever the strides say.
            outputs = [output.contiguous() for output in self.forward_dense(images)]
        else:
            _, outputs = self.forward_intermediates(images, self.out_indices, norm=True)
        return tuple(place(output) for place, output in zip(self.outputs.values(), outputs, strict=True))

    def init_weights(self) -> None:
        """Initialize as ``init_cfg`` says.

        Raises:
            UserError: A pretrained checkpoint is not there.
            CheckpointError: It cannot be read, does not hold every weight of this backbone, or holds others.
        """
        if self.init_cfg is None or self.init_cfg.get('type') != 'Pretrained':
            super().init_weights()
            return
        path = self.init_cfg['checkpoint']
        if '://' not in path and not osp.isfile(osp.expanduser(path)):
            raise UserError(
                f'The pretrained checkpoint {path} does not exist: put it there, name another one with `--cfg-options '
                'model.backbone.init_cfg.checkpoint=...`, or set model.backbone.init_cfg=None to start from random '
                'weights.'
            )
        known = {'type', 'checkpoint', 'prefix', 'map_location', 'fresh_mixers'}
        for key in self.init_cfg.keys() - known:
            raise UserError(f'model.backbone.init_cfg has no key {key!r}: choose from {", ".join(sorted(known))}.')
        report = checkpoints.load_content(
            self,
            _read(path),
            path,
            prefix=self.init_cfg.get('prefix'),
            fresh_mixers=self.init_cfg.get('fresh_mixers', False),
        )
        MMLogger.get_current_instance().info(str(report))
        self._is_init = True


def _mixer_factory(cfg: Mapping[str, Any]) -> MixerFactory:
    """Return what builds the mixer that a config describes."""
    if not isinstance(cfg, Mapping) or 'type' not in cfg:
        raise UserError(f"mixer={cfg!r} names no mixer: say mixer=dict(type='MyMixer', ...).")
    arguments = dict(cfg)
    kind = arguments.pop('type')
    factory = kind
    if isinstance(kind, str):
        with MODELS.switch_scope_and_registry(None) as registry:
            factory = registry.get(kind)
    if factory is None:
        raise UserError(
            f'The mixer {kind!r} is in no registry: decorate its class with mmengine.registry.MODELS.register_module() '
            "and name its module in the config's custom_imports."
        )
    return partial(factory, **arguments)


def _read(path: str) -> Any:
    """Read a local file by our own reader, an address by mmengine's loader for its kind."""
    if '://' not in path:
        return checkpoints.read(path)
    install_safe_loader()
    return CheckpointLoader.load_checkpoint(path, map_location='cpu', logger='current')
