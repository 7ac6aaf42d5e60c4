"""The seam for a new idea: what a block asks of its mixer, and how a model builds the mixer of a user.

A mixer is anything that is called with a map [B, H, W, C] and the layer scale [C] or None, and returns the mixed map,
[B, H, W, C], multiplied by the scale where there is one. `coc_core.layers.ClusterMixer` is the stock one. Whoever looks
inside a model asks a mixer for no more than this, and does without what it has not:

- ``clusters(x)`` returns who belongs to whom in a map, as `Clusters`; then ``center_grid`` and
  ``region_grid`` (along each side) and ``heads`` say of how many centers, regions and heads. Pictures,
  statistics and the explorer ask for it (`HasClusters`).
- ``impl`` is the implementation that it was built for; set to ``'plain'`` it runs plain PyTorch, which exporters and
  counters of operations want (`coc_core.ops.set_implementation`).
- ``own_parts()`` says in words what in it differs from the published layer, and is empty where nothing does. Only
  then it is compared with the published form (`coc_core.reference`).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from coc_core.errors import UserError, did_you_mean
from coc_core.ops.context import autocast_is_on, working_dtype
from coc_core.ops.regions import Grid

if TYPE_CHECKING:
    from coc_core.variants import CoCConfig

MixerFactory = Callable[..., nn.Module]
"""A class, or anything else that is called with a stage's numbers and returns a mixer."""


class Clusters(NamedTuple):
    """Who belongs to whom in a clustering layer.

    Attributes:
        center: The center of each point, its number within its region, row by row: int64 [B, H, W, heads].
        similarity: Of each point to each center of its region, [B, H, W, heads, centers], or None where there is none.
        scale: What the similarity is, in a word: ``'cosine'``, or another such as ``'z'``.
    """

    center: Tensor
    similarity: Tensor | None
    scale: str


@runtime_checkable
class HasClusters(Protocol):
    """A mixer whose clusters can be looked at."""

    center_grid: Grid
    region_grid: int
    heads: int

    def clusters(self, x: Tensor) -> Clusters:
        """Return who belongs to whom in a map [B, H, W, C]."""


def factory_name(factory: MixerFactory) -> str:
    """Return the name of a mixer: that of its class or function, whatever arguments are bound to it."""
    inner = getattr(factory, 'func', factory)
    return str(getattr(inner, '__name__', type(inner).__name__))


def build_mixer(factory: MixerFactory, config: CoCConfig, stage: int) -> nn.Module:
    """Build the mixer of one block.

    Args:
        factory: Called by keyword with the stage's numbers ``dim``, ``heads``, ``head_dim``, ``center_grid`` and
            ``region_grid``, and with ``denominator`` and ``impl`` where it takes them.
        config: The architecture.
        stage: Which of its stages the block is in.

    Raises:
        UserError: The factory is none, does not take these arguments, or makes no module.
    """
    name = factory_name(factory)
    if isinstance(factory, nn.Module) or not callable(factory):
        raise UserError(
            f'mixer={name} is no class: name a class or function that builds a mixer, as each block gets its own.'
        )
    numbers: dict[str, Any] = {
        'dim': config.dims[stage],
        'heads': config.heads[stage],
        'head_dim': config.head_dim[stage],
        'center_grid': config.center_grid[stage],
        'region_grid': config.region_grid[stage],
    }
    known = argument_names(factory)
    check_arguments(factory, numbers)
    bound = getattr(factory, 'keywords', {})
    options = {'denominator': config.denominator, 'impl': config.impl}
    numbers.update((k, v) for k, v in options.items() if k not in bound and (known is None or k in known))
    if config.denominator != 'similarity' and 'denominator' not in {**bound, **numbers}:
        raise UserError(f'{name} takes no denominator: it cannot be built with denominator={config.denominator!r}.')
    _check_call(factory, f'{name} cannot be built', **numbers)
    mixer = factory(**numbers)
    if not isinstance(mixer, nn.Module):
        raise UserError(f'mixer={name} returned {type(mixer).__name__}: a mixer must be an nn.Module.')
    if hasattr(mixer, 'impl') and 'impl' not in {**bound, **numbers}:
        mixer.impl = config.impl  # type: ignore[assignment]
    return mixer


def check_forward(part: nn.Module) -> None:
    """Raise UserError unless the forward of a block's mixer or MLP takes a map and the layer scale."""
    _check_call(part.forward, f'{type(part).__name__}.forward must take a map and the layer scale', None, None)


def _check_call(function: Callable[..., Any], problem: str, *args: Any, **kwargs: Any) -> None:
    try:
        inspect.signature(function).bind(*args, **kwargs)
    except TypeError as error:
        raise UserError(f'{problem}: {error}.') from None


def same_shape(mixed: Tensor, x: Tensor, name: str) -> Tensor:
    """Return what a mixer made of a map.

    Raises:
        UserError: It is no map of the same shape, or of a type in which the map could not go on.
    """
    if not isinstance(mixed, Tensor):
        raise UserError(f'{name} returned {type(mixed).__name__}: a mixer returns a map like the one that it takes.')
    if mixed.shape != x.shape:
        raise UserError(
            f'{name} returned {list(mixed.shape)} for a map {list(x.shape)}: a mixer returns a map of the same shape.'
        )
    widest = working_dtype(x) if autocast_is_on(x.device.type) else x.dtype
    if not mixed.is_floating_point() or torch.promote_types(mixed.dtype, widest) != widest:
        raise UserError(
            f'{name} returned {mixed.dtype} for a map of {x.dtype}: a mixer returns a map of the same type, cast it by '
            '.to(x.dtype).'
        )
    return mixed


def argument_names(factory: MixerFactory) -> frozenset[str] | None:
    """Return the names of all arguments that a factory takes, those it passes on to its bases among them.

    None stands for any name.
    """
    inner = getattr(factory, 'func', factory)
    names: set[str] = set()
    for level in inspect.getmro(inner) if inspect.isclass(inner) else [inner]:
        if level is nn.Module:
            # It takes anything by its signature, and nothing in fact.
            return frozenset(names - {'self'})
        if inspect.isclass(level) and '__init__' not in vars(level):
            continue
        parameters = inspect.signature(vars(level)['__init__'] if inspect.isclass(level) else level).parameters.values()
        names |= {p.name for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            return frozenset(names - {'self'})
    return None


def check_arguments(factory: MixerFactory, numbers: dict[str, Any]) -> None:
    """Raise ValueError unless a factory takes these arguments, beside others that are bound to it."""
    known = argument_names(factory)
    bound = getattr(factory, 'keywords', {})
    for argument in bound.keys() & numbers.keys():
        raise UserError(
            f'{factory_name(factory)} was given {argument}={bound[argument]!r}, a number of its stage: '
            "change it by the variant's field."
        )
    for argument in (*bound, *numbers):
        if known is not None and argument not in known:
            own = sorted(known - numbers.keys() - {'denominator', 'impl'})
            told = f'Beside the numbers of its stage it takes {", ".join(own) or "nothing"}.'
            what = 'It is a number of its stage, which every mixer is given.' if argument in numbers else told
            raise UserError(
                f'{factory_name(factory)} takes no argument {argument!r}.{did_you_mean(argument, own)} {what}'
            )
