"""A checkpoint of another model is an error, where mmengine only warns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmengine.hooks import Hook
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.runner import Runner
from torch import Tensor, nn

from coc_core.mm.errors import LaunchError


class StrictLoadHook(Hook):
    """Compares a checkpoint with the runner's model before its weights are taken over.

    Args:
        path: The name that the message gives the checkpoint.

    Raises:
        LaunchError: In `after_load_checkpoint`, where keys or shapes differ.
    """

    # After hooks that themselves change the checkpoint, such as EMAHook.
    priority = 'LOWEST'

    def __init__(self, path: str) -> None:
        self.path = path

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        model = runner.model
        while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
            model = model.module
        difference = state_difference(model, weights_of(checkpoint, self.path))
        if difference:
            raise LaunchError(f'The checkpoint {self.path} belongs to another model: {difference}.')


def weights_of(checkpoint: Any, path: str) -> dict[str, Tensor]:
    """The weights within a checkpoint, without the prefix of a parallel wrapper.

    Raises:
        LaunchError: There are none.
    """
    found = checkpoint.get('state_dict', checkpoint) if isinstance(checkpoint, Mapping) else None
    if not isinstance(found, Mapping) or not any(isinstance(value, Tensor) for value in found.values()):
        raise LaunchError(f'The file {path} holds no weights (neither a `state_dict` nor named tensors).')
    return {str(key).removeprefix('module.'): value for key, value in found.items()}


def state_difference(model: nn.Module, weights: Mapping[str, Tensor]) -> str:
    """Says in half a sentence how weights differ from a model's own; empty where they fit.

    The model takes over what fits: only loading runs the hooks by which modules rename old keys.
    """
    own = model.state_dict()
    reshaped = [key for key in own if key in weights and _shape(own[key]) != _shape(weights[key])]
    if reshaped:
        key = reshaped[0]
        return (
            f'{len(reshaped)} parameters have another shape, first {key} with {list(weights[key].shape)} '
            f'where the model has {list(own[key].shape)}'
        )
    try:
        report = model.load_state_dict(dict(weights), strict=False)
    except RuntimeError as error:
        return ' '.join(str(error).split())
    missing = [key for key in report.missing_keys if not key.endswith('num_batches_tracked')]
    parts = [_listing(missing, 'missing'), _listing(report.unexpected_keys, 'unexpected')]
    return ' and '.join(part for part in parts if part)


def _shape(value: Any) -> tuple[int, ...] | None:
    return tuple(value.shape) if isinstance(value, Tensor) else None


def _listing(keys: list[str], kind: str) -> str:
    if not keys:
        return ''
    shown = ', '.join(keys[:3]) + (', ...' if len(keys) > 3 else '')
    return f'{len(keys)} keys are {kind} ({shown})'
