"""The architecture of every published point-cloud model: the only home of these numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from coc_core.errors import UserError, did_you_mean
from coc_core.variants import override_fields

_PER_STAGE = ('dim_factors', 'anchors', 'pre_blocks', 'post_blocks')


@dataclass(frozen=True)
class PointMLPConfig:
    """One PointMLP (Ma et al., 2022), with or without clustering layers (Context Cluster, section 4.4).

    Every field written "per stage" takes one value for all stages or a sequence with one value per stage.

    Attributes:
        embed_dim: Channels of the embedding.
        dim_factors: Channels that a stage makes of one, per stage.
        anchors: Points that a stage keeps, per stage, whatever the size of the cloud: where a cloud has fewer, its
            first point is kept again.
        pre_blocks: Residual blocks over the points of a group, per stage.
        post_blocks: Residual blocks over the anchors, per stage.
        residual_expansion: Hidden width of a residual block divided by its channels.
        neighbors: Points in the group of an anchor, itself included.
        clustering: Whether a clustering layer precedes each residual block over the points of a group.

    Raises:
        UserError: A field has the wrong length or an impossible value.
    """

    UNSEEN: ClassVar = ('anchors', 'neighbors')
    """The fields that a model's weights do not show, neither by names nor by shapes."""

    embed_dim: int = 64
    dim_factors: tuple[int, ...] = (2, 2, 2, 2)
    anchors: tuple[int, ...] = (512, 256, 128, 64)
    pre_blocks: tuple[int, ...] = (2, 2, 2, 2)
    post_blocks: tuple[int, ...] = (2, 2, 2, 2)
    residual_expansion: float = 1.0
    neighbors: int = 24
    clustering: bool = False

    def __post_init__(self) -> None:
        stages = len(self.anchors) if isinstance(self.anchors, Iterable) else 4
        for name in _PER_STAGE:
            value = getattr(self, name)
            per_stage = tuple(value) if isinstance(value, Iterable) else (value,) * stages
            if len(per_stage) != stages or any(type(v) is not int or v < 1 for v in per_stage):
                raise UserError(f'{name}={value!r} must hold a positive integer for each of the {stages} stages.')
            object.__setattr__(self, name, per_stage)
        for name in ('embed_dim', 'neighbors'):
            if type(getattr(self, name)) is not int or getattr(self, name) < 1:
                raise UserError(f'{name}={getattr(self, name)!r} must be a positive integer.')
        if self.neighbors > min(self.anchors[:-1], default=self.neighbors):
            raise UserError(f'neighbors={self.neighbors} are more points than anchors={self.anchors} leave to group.')
        if int(self.embed_dim * self.residual_expansion) < 1:
            raise UserError(f'residual_expansion={self.residual_expansion} leaves a block without hidden channels.')

    @property
    def dims(self) -> tuple[int, ...]:
        """Channels after the embedding and after each stage."""
        dims = [self.embed_dim]
        for factor in self.dim_factors:
            dims.append(dims[-1] * factor)
        return tuple(dims)

    def override(self, **overrides: Any) -> PointMLPConfig:
        """Return a copy with some fields replaced.

        Raises:
            UserError: A name is not a field, or a value is impossible.
        """
        return override_fields(self, overrides)


VARIANTS: Mapping[str, PointMLPConfig] = {
    'pointmlp': PointMLPConfig(),
    'pointmlp_coc': PointMLPConfig(clustering=True),
    'pointmlp_elite': PointMLPConfig(
        embed_dim=32,
        dim_factors=(2, 2, 2, 1),
        pre_blocks=(1, 1, 2, 1),
        post_blocks=(1, 1, 2, 1),
        residual_expansion=0.25,
    ),
}


def get_config(arch: str) -> PointMLPConfig:
    """Return the published variant ``arch``.

    Raises:
        UserError: There is no such variant.
    """
    if arch not in VARIANTS:
        raise UserError(f'Unknown variant {arch!r}.{did_you_mean(arch, VARIANTS)} Variants: {", ".join(VARIANTS)}.')
    return VARIANTS[arch]
