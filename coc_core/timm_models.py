"""Every variant in timm's registry: ``timm.create_model('coc_small')`` after ``import coc_core``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import adapt_input_conv, build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor

from coc_core.checkpoints import load_content, read
from coc_core.checkpoints.loading import agreed_denominator, check_mixer
from coc_core.checkpoints.origins import recognize
from coc_core.mixers import MixerFactory
from coc_core.model import ContextCluster
from coc_core.variants import VARIANTS, get_config

# timm's register_model adds each entry point's name to this list.
__all__ = ['build_from_timm']

_WEIGHTS = Path(__file__).parent / 'weights'
_UNTRAINED: dict[str, Any] = {
    'url': '',
    'num_classes': 1000,
    'input_size': (3, 224, 224),
    'fixed_input_size': False,
    'pool_size': (7, 7),
    'crop_pct': 0.9,
    'interpolation': 'bicubic',
    'mean': IMAGENET_DEFAULT_MEAN,
    'std': IMAGENET_DEFAULT_STD,
    'first_conv': 'stem',
    'classifier': 'head',
    'license': 'apache-2.0',
    'paper_ids': 'arXiv:2303.01494',
    'paper_name': 'Image as Set of Points',
}
# As `make demo` trains it: configs/classification/coc-tiny_1xb32-12e_digits.py.
_DIGITS: dict[str, Any] = {
    **_UNTRAINED,
    'file': str(_WEIGHTS / 'coc_tiny.digits-3a8233e4.safetensors'),
    'num_classes': 10,
    'input_size': (3, 64, 64),
    'pool_size': (2, 2),
    'crop_pct': 1.0,
    'interpolation': 'bilinear',
    'label_names': tuple('0123456789'),
}
# timm takes the last that it puts first for the one of a name without a tag: what has weights, then what has a star.
default_cfgs = generate_default_cfgs(
    {'coc_tiny.digits': _DIGITS, **{f'{name}.untrained*': _UNTRAINED for name in VARIANTS}}
)


def build_from_timm(
    *,
    arch: str,
    in_chans: int = 3,
    num_classes: int = 1000,
    drop_rate: float = 0.0,
    global_pool: str = 'avg',
    mixer: MixerFactory | None = None,
    **overrides: Any,
) -> ContextCluster:
    """Build the variant ``arch`` from timm's argument names; other arguments are those of `coc_core.create_model`.

    Raises:
        UserError: An argument is unknown or impossible.
    """
    config = get_config(arch).override(in_channels=in_chans, **overrides)
    model = ContextCluster(config, num_classes=num_classes, drop_rate=drop_rate, global_pool=global_pool, mixer=mixer)
    # timm's own adaptation of the first convolution does not know coordinate channels; `adapt_pretrained` does it.
    model._traits = {'first_conv': None}  # type: ignore[assignment]
    return model


def adapt_pretrained(
    state_dict: Mapping[str, Any], model: ContextCluster, file: str | None = None
) -> dict[str, Tensor]:
    """Bring pretrained weights of any origin into a model's form, as timm asks for before it loads them.

    The stem's image channels are adapted to the model's number by `timm.models.adapt_input_conv`, its coordinate
    channels stay; timm then drops the head where the number of classes differs.

    Raises:
        CheckpointError: The weights are no Context Cluster, lack something but the head, or were trained with another
            denominator or mixer.
    """
    named = (getattr(model, 'pretrained_cfg', None) or {}).get('file')
    file = file or (named if named and Path(named).is_file() else None)
    name = file or 'the pretrained weights'
    # timm hands over the tensors without the file's record of their denominator and mixer.
    source = recognize(read(file) if file else state_dict, name)
    agreed_denominator(model, source, name)
    check_mixer(model, source, name)
    weights = dict(source.weights)
    if 'stem.weight' in weights:
        image, coordinates = weights['stem.weight'].tensor_split([-2], dim=1)
        adapted = adapt_input_conv(model.config.in_channels, image, base_chans=image.shape[1])
        weights['stem.weight'] = torch.cat([adapted, coordinates], dim=1)
    head = {key: value for key, value in model.state_dict().items() if key.startswith('head.')}
    load_content(model, {**weights, **source.unknown, **head}, name)
    return weights


def _entry_point(name: str) -> Callable[..., Any]:
    def entry(pretrained: bool = False, **kwargs: Any) -> Any:
        out_indices = kwargs.pop('out_indices', (0, 1, 2, 3))
        overlay = kwargs.get('pretrained_cfg_overlay') or {}
        return build_model_with_cfg(
            build_from_timm,
            name,
            pretrained,
            arch=name,
            pretrained_filter_fn=partial(adapt_pretrained, file=overlay.get('file')),
            feature_cfg={'out_indices': out_indices, 'feature_cls': 'getter'},
            **kwargs,
        )

    # timm reads these two of every entry point.
    entry.__name__ = entry.__qualname__ = name
    entry.__module__ = __name__
    entry.__doc__ = f'{name} of Image as Set of Points (arXiv 2303.01494).'
    return entry


for _name in VARIANTS:
    setattr(sys.modules[__name__], _name, register_model(_entry_point(_name)))
