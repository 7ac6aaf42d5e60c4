"""The model of a config, and what it takes in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from numpy.typing import NDArray
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn

from coc_core.mm.mistakes import building

_SYNC_BATCH_NORMS = {'SyncBN': 'BN', 'MMSyncBN': 'BN', 'SyncBatchNorm': 'BN'}


def build_model(cfg: Config, name: str) -> nn.Module:
    """Build the model of a config with its initial weights, for one process, as mmengine's runner builds it.

    Args:
        cfg: The config; its model and the default scope of this process are changed.
        name: What messages call the config.

    Raises:
        UserError: A name in the config is unknown.
    """
    init_default_scope(cfg.get('default_scope') or 'mmengine')
    replace_sync_batch_norm(cfg.get('model'))
    if cfg.get('data_preprocessor'):
        cfg.model.setdefault('data_preprocessor', cfg.data_preprocessor)
    with building(f'the model of {name}'):
        model: nn.Module = MODELS.build(cfg.model)
    return model


def replace_sync_batch_norm(node: Any) -> None:
    """Make every SyncBN of a config the batch norm of one process, in place: SyncBN raises without a GPU."""
    if isinstance(node, Mapping):
        if node.get('type') in _SYNC_BATCH_NORMS:
            node['type'] = _SYNC_BATCH_NORMS[node['type']]  # type: ignore[index]
        for child in node.values():
            replace_sync_batch_norm(child)
    elif isinstance(node, (list, tuple)):
        for child in node:
            replace_sync_batch_norm(child)


def network_input(model: nn.Module, images: Sequence[NDArray[Any]]) -> Tensor:
    """Return the normalized batch of pictures, [B, 3, H, W], as a model's own preprocessor makes it, padding included.

    Args:
        model: A model of mmpretrain, mmdet or mmseg, or a ``ContextCluster``, which gets ImageNet's mean and deviation.
        images: Each uint8 [H, W, 3], RGB, all of one size.
    """
    batch = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
    preprocessor = getattr(model, 'data_preprocessor', None)
    if preprocessor is None:
        mean, std = (torch.tensor(values)[:, None, None] for values in (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD))
        return ((batch / 255 - mean) / std).to(next(model.parameters()).device)
    # The packages' pipelines read images as BGR.
    inputs: Tensor = preprocessor({'inputs': list(batch.flip(1))}, False)['inputs']
    return inputs
