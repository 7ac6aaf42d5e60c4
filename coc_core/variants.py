"""The architecture of every published Context Cluster: the only home of these numbers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from coc_core.errors import UserError, did_you_mean
from coc_core.ops import check_denominator, check_impl

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Config = TypeVar('Config', bound='DataclassInstance')

STEM_STRIDE = 4

_PER_STAGE = ('dims', 'mlp_ratios', 'heads', 'head_dim', 'center_grid', 'region_grid')


@dataclass(frozen=True)
class CoCConfig:
    """One Context Cluster architecture (paper, section 3 and appendix A).

    Every field written "per stage" takes one value for all stages or a sequence with one value per stage; it is
    stored as a tuple. The number of stages is ``len(depths)``; stage ``i`` works at stride ``4 * 2**i``.

    Attributes:
        depths: Number of blocks of each stage.
        dims: Channels, per stage.
        mlp_ratios: Hidden width of the MLP divided by the channels, per stage.
        heads: Heads of the clustering layer, per stage.
        head_dim: Channels of one head, per stage.
        center_grid: Centers along each side of a region, per stage: ``center_grid**2`` clusters in a region.
        region_grid: Regions along each side of the feature map, per stage.
        in_channels: Channels of the image; two coordinate channels come on top.
        layer_scale_init: Initial value of both layer scales of a block.
        drop_path_rate: Stochastic depth of the last block, rising linearly from 0 at the first.
        denominator: ``'similarity'`` (published weights since May 2023) or ``'count'`` (March 2023): what a
            center's sum is divided by, see `coc_core.ops.cluster`.
        impl: Implementation of the clustering operator, see `coc_core.ops.cluster`.

    Raises:
        UserError: A field has the wrong length or an impossible value.
    """

    UNSEEN: ClassVar = ('heads', 'head_dim', 'center_grid', 'region_grid')
    """The fields that a model's weights may not show, neither by names nor by shapes."""

    depths: tuple[int, ...]
    dims: tuple[int, ...]
    mlp_ratios: tuple[float, ...]
    heads: tuple[int, ...]
    head_dim: tuple[int, ...]
    center_grid: tuple[int, ...]
    region_grid: tuple[int, ...]
    in_channels: int = 3
    layer_scale_init: float = 1e-5
    drop_path_rate: float = 0.0
    denominator: str = 'similarity'
    impl: str = 'auto'

    def __post_init__(self) -> None:
        depths = tuple(self.depths) if isinstance(self.depths, Iterable) else (self.depths,)
        object.__setattr__(self, 'depths', depths)
        for name in _PER_STAGE:
            value = getattr(self, name)
            per_stage = tuple(value) if isinstance(value, Iterable) else (value,) * len(depths)
            if len(per_stage) != len(depths):
                raise UserError(
                    f'{name}={value!r} has {len(per_stage)} entries but depths={depths} names {len(depths)} stages: '
                    'give one value for all stages or one for each.'
                )
            object.__setattr__(self, name, per_stage)
        self._check_values()

    def _check_values(self) -> None:
        integers = ('depths', 'dims', 'heads', 'head_dim', 'center_grid', 'region_grid')
        for name in integers:
            values = getattr(self, name)
            if not values or any(type(v) is not int or v < 1 for v in values):
                raise UserError(f'{name}={values} must hold positive integers, one for each stage.')
        if type(self.in_channels) is not int or self.in_channels < 1:
            raise UserError(f'in_channels={self.in_channels!r} must be a positive integer.')
        if any(int(dim * ratio) < 1 for dim, ratio in zip(self.dims, self.mlp_ratios, strict=True)):
            raise UserError(f'mlp_ratios={self.mlp_ratios} leave an MLP without hidden channels at dims={self.dims}.')
        check_denominator(self.denominator)
        check_impl(self.impl)
        if not 0.0 <= self.drop_path_rate < 1.0:
            raise UserError(f'drop_path_rate={self.drop_path_rate} must lie in [0, 1).')

    @property
    def num_stages(self) -> int:
        """Number of stages."""
        return len(self.depths)

    @property
    def strides(self) -> tuple[int, ...]:
        """Pixels of the image per position of the feature map, per stage."""
        return tuple(STEM_STRIDE * 2**i for i in range(self.num_stages))

    @property
    def size_divisibility(self) -> int:
        """Image sizes that divide by this number of pixels are not padded, as every region grid fits them."""
        grids = (s * g for s, g in zip(self.strides, self.region_grid, strict=True) if g > 1)
        return math.lcm(STEM_STRIDE, *grids)

    def override(self, **overrides: Any) -> CoCConfig:
        """Return a copy with some fields replaced.

        Raises:
            UserError: A name is not a field of CoCConfig, or a value is impossible.
        """
        return override_fields(self, overrides)


def override_fields(config: Config, overrides: Mapping[str, Any]) -> Config:
    """Return a copy of an architecture's dataclass with some fields replaced.

    Raises:
        UserError: A name is not a field, or a value is impossible.
    """
    known = [f.name for f in fields(config)]
    for name in overrides:
        if name not in known:
            # Of the functions that pass fields on, these are arguments beside them.
            hint = did_you_mean(name, {*known, 'num_classes', 'mixer'} - {name})
            if name == 'pretrained':
                hint = ' Weights are loaded by coc_core.checkpoints.load(model, FILE), or by timm.create_model.'
            raise UserError(f'{type(config).__name__} has no field {name!r}.{hint} Fields: {", ".join(known)}.')
    return replace(config, **overrides)


def get_config(arch: str | Mapping[str, Any]) -> CoCConfig:
    """Return the published variant ``arch``, or the architecture that a mapping of CoCConfig fields describes.

    Raises:
        UserError: There is no such variant, or a field is unknown, missing or impossible.
    """
    if isinstance(arch, Mapping):
        missing = [f.name for f in fields(CoCConfig) if f.default is MISSING and f.name not in arch]
        if missing:
            raise UserError(f'arch={dict(arch)} lacks the CoCConfig fields {", ".join(missing)}.')
        required = {f.name: arch[f.name] for f in fields(CoCConfig) if f.default is MISSING}
        return CoCConfig(**required).override(**{k: v for k, v in arch.items() if k not in required})
    if arch not in VARIANTS:
        raise UserError(f'Unknown variant {arch!r}.{did_you_mean(arch, VARIANTS)} Variants: {", ".join(VARIANTS)}.')
    return VARIANTS[arch]


_TINY = CoCConfig(
    depths=(3, 4, 5, 2),
    dims=(32, 64, 196, 320),
    mlp_ratios=(8, 8, 4, 4),
    heads=(4, 4, 8, 8),
    head_dim=24,  # type: ignore[arg-type]
    center_grid=2,  # type: ignore[arg-type]
    region_grid=(8, 4, 2, 1),
)
_SMALL = _TINY.override(depths=(2, 2, 6, 2), dims=(64, 128, 320, 512), head_dim=32)
_MEDIUM = _SMALL.override(depths=(4, 4, 12, 4), heads=(6, 6, 12, 12))

VARIANTS: dict[str, CoCConfig] = {
    'coc_tiny': _TINY,
    'coc_tiny2': _TINY.override(center_grid=(4, 2, 7, 4), region_grid=(7, 7, 1, 1)),
    'coc_tiny_plain': _TINY.override(center_grid=(4, 4, 2, 2), region_grid=1),
    'coc_small': _SMALL,
    'coc_medium': _MEDIUM,
    'coc_base_dim64': _MEDIUM.override(depths=(6, 6, 24, 6), heads=(8, 8, 16, 16)),
    'coc_base_dim96': _MEDIUM.override(dims=(96, 192, 384, 768), heads=(8, 8, 16, 16)),
}
