"""Weights that other packages load into models of theirs: what is asked for is what a training starts from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from mmengine.hooks import EMAHook
from mmengine.model import PretrainedInit, is_model_wrapper
from mmengine.registry import WEIGHT_INITIALIZERS
from mmengine.runner import Runner
from torch import nn

from coc_core.errors import UserError

# Of pixels from 0 to 255: configs round.
_TOLERANCE = 0.5


@WEIGHT_INITIALIZERS.register_module(name='Pretrained', force=True)
class UsedPretrainedInit(PretrainedInit):  # type: ignore[misc]
    """mmengine's ``init_cfg=dict(type='Pretrained', ...)``, which trained from random weights where nothing fitted.

    Raises:
        UserError: When called: the module takes over no parameter of the file.
    """

    def __call__(self, module: nn.Module) -> None:
        """Load what fits; mmengine warns of the rest."""
        before = {name: parameter.detach().clone() for name, parameter in module.named_parameters()}
        super().__call__(module)
        if before and all(torch.equal(parameter, before[name]) for name, parameter in module.named_parameters()):
            under = f' under the prefix {self.prefix!r}' if self.prefix else ''
            raise UserError(
                f'init_cfg: {self.checkpoint} holds nothing{under} that fits {type(module).__name__}, whose first '
                f'parameter is {next(iter(before))}: name a checkpoint of this model, or the prefix of its names in '
                "the file (prefix='backbone.')."
            )


def start_as_given(runner: Runner) -> None:
    """Keep weights that timm has loaded into a runner's model, and warn where they were trained on other pixels.

    Raises:
        UserError: A hook cannot average the model, whose checkpoints have other names than its parameters.
    """
    model = runner.model.module if is_model_wrapper(runner.model) else runner.model
    if any(isinstance(hook, EMAHook) for hook in runner.hooks) and _renames(model):
        raise UserError(
            f'custom_hooks: EMAHook cannot average {type(model).__name__}, which renames its weights in checkpoints: '
            "take type='ImageClassifier' with backbone=dict(type='TIMMBackbone', ...), or leave EMAHook out."
        )
    wrappers = list(_timm_entries(runner.cfg.get('model')))
    # Its parts are no modules of mmengine, which would initialize them anew as a training begins.
    if str((runner.cfg.get('model') or {}).get('type')).endswith('TimmClassifier') and wrappers:
        model.model.is_init = True
    if any(entry.get('pretrained') for entry in wrappers) and (told := other_pixels(model)):
        runner.logger.warning(told)


def _renames(model: nn.Module) -> bool:
    return not model.state_dict().keys() >= {name for name, _ in model.named_parameters()}


def _timm_entries(node: Any) -> Iterator[Mapping[str, Any]]:
    """Yield the parts of a config whose models timm makes with weights of a file."""
    if isinstance(node, Mapping):
        kind = str(node.get('type')).rpartition('.')[2]
        if kind in ('TimmClassifier', 'TIMMBackbone') and (node.get('pretrained') or node.get('checkpoint_path')):
            yield node
        for child in node.values():
            yield from _timm_entries(child)
    elif isinstance(node, (list, tuple)):
        for child in node:
            yield from _timm_entries(child)


def other_pixels(model: nn.Module) -> str | None:
    """Return a sentence where a model's images are not normalized as in the training of timm's weights; else None."""
    configs: list[Any] = [getattr(module, 'pretrained_cfg', None) for module in model.modules()]
    trained = next((config for config in configs if isinstance(config, Mapping)), None)
    preprocessor = getattr(model, 'data_preprocessor', None)
    if trained is None or preprocessor is None:
        return None
    theirs = {name: [255 * value for value in trained.get(name) or ()] for name in ('mean', 'std')}
    neutral = {'mean': 0.0, 'std': 1.0}
    ours = {}
    for name, values in theirs.items():
        own = getattr(preprocessor, name, None)
        ours[name] = own.flatten().tolist() if isinstance(own, torch.Tensor) else [neutral[name]] * len(values)
        if len(ours[name]) != len(values):
            return None
    if all(abs(a - b) <= _TOLERANCE for name in theirs for a, b in zip(theirs[name], ours[name], strict=True)):
        return None
    return (
        f'timm trained {trained.get("architecture")} on images of {_shown(theirs)}, but the data preprocessor makes '
        f'{_shown(ours)}: its weights expect the former, so set mean and std of data_preprocessor to these.'
    )


def _shown(values: Mapping[str, list[float]]) -> str:
    return ' and '.join(f'{name} [{", ".join(f"{value:.5g}" for value in row)}]' for name, row in values.items())
