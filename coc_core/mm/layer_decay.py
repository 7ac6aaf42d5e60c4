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
    downsampling layer. With L of them, layer i learns at ``layer_decay_rate ** (L - i)`` of the rate that the other
    entries of ``paramwise_cfg`` give it; necks and heads learn at the full rate (timm's ``param_groups_layer_decay``).

    Raises:
        UserError: When called: there is no ``layer_decay_rate`` in (0, 1], or the backbone does not say which layer
            its parameters are of (timm's ``group_matcher``).
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
        backbone = getattr(module, 'backbone', None)
        if backbone is None or not hasattr(backbone, 'group_matcher'):
            raise UserError(
                f'{type(self).__name__} needs a backbone that sorts its parameters into layers (group_matcher), as '
                f'ContextCluster does; the model has {type(backbone).__name__}.'
            )
        layers = group_parameters(backbone, backbone.group_matcher())
        scales = {name: rate ** (len(layers) - place) for place, names in layers.items() for name in names}
        scale_of = {parameter: scales[name] for name, parameter in backbone.named_parameters()}
        for group in params:
            group['lr'] = group.get('lr', self.base_lr) * scale_of.get(group['params'][0], 1.0)
