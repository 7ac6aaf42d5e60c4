"""Layer-wise learning rates for every task: the nearer to the image, the slower a layer learns."""

from __future__ import annotations

from typing import Any

from mmengine.optim import DefaultOptimWrapperConstructor
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS
from timm.models import group_parameters
from torch import nn

from coc_core.errors import UserError


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class LayerDecayOptimWrapperConstructor(DefaultOptimWrapperConstructor):  # type: ignore[misc]
    """mmengine's constructor with one more entry of ``paramwise_cfg``, ``layer_decay_rate``.

    Layers are those of the backbone's ``group_matcher``: of ``ContextCluster`` the stem, then each block with its
    downsampling layer; models of timm (``TIMMBackbone``, ``TimmClassifier``) have theirs. With L of them, layer i
    learns at ``layer_decay_rate ** (L - i)`` of the rate that other entries of ``paramwise_cfg`` give it; necks and
    heads learn at the full rate (timm's ``param_groups_layer_decay``). A rate of 1 needs no layers.

    Raises:
        UserError: When called: there is no ``layer_decay_rate`` in (0, 1], or it is less than 1 and the backbone does
            not say which layer its parameters are of (timm's ``group_matcher``).
    """

    def add_params(
        self, params: list[dict[str, Any]], module: nn.Module, prefix: str = '', is_dcn_module: int | None = None
    ) -> None:
        """Add a group for each parameter; the recursion's last step, the whole model, scales them all."""
        super().add_params(params, module, prefix, is_dcn_module)
        if prefix:
            return
        rate = self.paramwise_cfg.get('layer_decay_rate')
        if not isinstance(rate, (int, float)) or not 0 < rate <= 1:
            raise UserError(f'paramwise_cfg.layer_decay_rate={rate!r} must be a number in (0, 1].')
        if rate == 1:
            return
        scale_of = _scales(module, rate, type(self).__name__)
        for group in params:
            group['lr'] = group.get('lr', self.base_lr) * scale_of.get(group['params'][0], 1.0)


def _scales(model: nn.Module, rate: float, constructor: str) -> dict[nn.Parameter, Any]:
    """Return the factor of each parameter that is of a layer."""
    backbone = getattr(model, 'backbone', None)
    # Where mmpretrain holds models of timm; a TimmClassifier's has its head among its layers, as the last of them.
    places = (backbone, getattr(backbone, 'timm_model', None), getattr(model, 'model', None))
    sorted_part = next((part for part in places if hasattr(part, 'group_matcher')), None)
    if sorted_part is None:
        raise UserError(
            f'{constructor} needs a backbone that sorts its parameters into layers (group_matcher), as ContextCluster '
            f'does; the model has {type(backbone or model).__name__}: set paramwise_cfg.layer_decay_rate=1.0, or '
            "optim_wrapper.constructor to that of the backbone's package."
        )
    layers = group_parameters(sorted_part, sorted_part.group_matcher())
    count = len(layers) - (backbone is None)
    scales = {name: rate ** (count - place) for place, names in layers.items() for name in names}
    return {parameter: scales[name] for name, parameter in sorted_part.named_parameters()}  # type: ignore[union-attr]
