"""Every variant in timm's registry: ``timm.create_model('coc_small')`` after ``import coc_core``."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model

from coc_core.model import ContextCluster
from coc_core.variants import VARIANTS, get_config

# timm's register_model adds each entry point's name to this list.
__all__ = ['build_from_timm']

default_cfgs = generate_default_cfgs(
    {
        f'{name}.untrained': {
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
        for name in VARIANTS
    }
)


def build_from_timm(
    *, arch: str, in_chans: int = 3, num_classes: int = 1000, drop_rate: float = 0.0, **overrides: Any
) -> ContextCluster:
    """Build the variant ``arch`` from timm's argument names; other arguments are fields of `CoCConfig`.

    Raises:
        ValueError: An argument is unknown or impossible.
    """
    config = get_config(arch).override(in_channels=in_chans, **overrides)
    return ContextCluster(config, num_classes=num_classes, drop_rate=drop_rate)


def _entry_point(name: str) -> Callable[..., Any]:
    def entry(pretrained: bool = False, **kwargs: Any) -> Any:
        out_indices = kwargs.pop('out_indices', (0, 1, 2, 3))
        return build_model_with_cfg(
            build_from_timm,
            name,
            pretrained,
            arch=name,
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
