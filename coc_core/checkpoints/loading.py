"""Loads a checkpoint of any known origin into a model: completely, or not at all."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from coc_core.checkpoints.differences import differences
from coc_core.checkpoints.layouts import LAYOUTS
from coc_core.checkpoints.origins import Source, recognize
from coc_core.checkpoints.reading import CheckpointError, read
from coc_core.model import ContextCluster
from coc_core.ops.regions import DENOMINATORS

_MIXER = re.compile(r'(?:^|\.)stages\.\d+\.blocks\.\d+\.mixer\.')


@dataclass(frozen=True)
class Report:
    """What `load` did; ``print(report)`` tells it.

    Attributes:
        name: The checkpoint.
        origin: Where it comes from, by its content.
        loaded: Number of tensors that the model took over.
        translated: What was changed on the way.
        fresh: The model's names that keep their initial values by design: a dense backbone's norms where the
            checkpoint is a classifier's, counters of batches, and with ``fresh_mixers`` what this mixer alone has.
        unused: The checkpoint's names that have no place in the model by design: a classifier's norm and head in a
            dense backbone, stages that are not built and norms of outputs that are not asked for, other parts than
            the backbone in a bare backbone, and with ``fresh_mixers`` what the other mixer alone had.
        denominator: The model's, or None where it has no clustering layers.
        evidence: What tells that the weights were trained with it.
        problems: What does not fit, only with ``strict=False``.
        otherwise: What the training that the file records had otherwise than the model: see
            `coc_core.checkpoints.differences`.
    """

    name: str
    origin: str
    loaded: int
    translated: tuple[str, ...]
    fresh: tuple[str, ...]
    unused: tuple[str, ...]
    denominator: str | None
    evidence: str
    problems: tuple[str, ...] = ()
    otherwise: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = [f'{self.name}: {self.origin}', f'  loaded: {self.loaded} tensors']
        lines += [f'  translated: {step}' for step in self.translated]
        lines += [f'  {title}: {_listing(names)}' for title, names in _titled(self.fresh, self.unused) if names]
        if self.denominator:
            lines.append(f'  denominator: {self.denominator!r} ({self.evidence})')
        lines += [f'  trained otherwise: {difference}' for difference in self.otherwise]
        return '\n'.join([*lines, *(f'  does not fit: {problem}' for problem in self.problems)])


def _titled(fresh: tuple[str, ...], unused: tuple[str, ...]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    return ('starts fresh by design', fresh), ('not used by design', unused)


def load(
    model: nn.Module,
    path: str | Path,
    *,
    strict: bool = True,
    ema: bool = False,
    prefix: str | None = None,
    fresh_mixers: bool = False,
) -> Report:
    """Load a checkpoint file of this project or a published one into a model.

    Published and own checkpoints of all four tasks are recognized by their content. Where the denominator that the
    weights were trained with can be seen, it must be the model's; where it cannot, the model's is assumed, and the
    report says so (files of March 2023 need a model built with ``denominator='count'``).

    Args:
        model: A classifier or dense backbone of `coc_core`, a model of mmpretrain, mmdet or mmseg around one, or a
            point-cloud classifier.
        path: A file of torch or safetensors.
        strict: Everything must fit but what `Report` lists as fresh and unused, and the mixer must be the weights';
            False loads what fits, and tells.
        ema: Take the averaged weights that stand beside the others (``state_dict_ema``).
        prefix: What precedes the backbone's names in the file; by default it is seen from them.
        fresh_mixers: Take weights that were trained with another mixer: what both mixers have by the same name and
            shape is loaded, the rest of the model's stays fresh, and the report names it.

    Raises:
        CheckpointError: The file cannot be read, or does not fit; the model is as it was.
    """
    return load_content(model, read(path), str(path), strict=strict, ema=ema, prefix=prefix, fresh_mixers=fresh_mixers)


def load_content(
    model: nn.Module,
    checkpoint: Any,
    name: str,
    *,
    strict: bool = True,
    ema: bool = False,
    prefix: str | None = None,
    fresh_mixers: bool = False,
) -> Report:
    """Do as `load` does with what was read from a file; ``name`` is what messages call it."""
    source = recognize(checkpoint, name, ema=ema, prefix=prefix)
    model = _unwrapped(model)
    own = model.state_dict()
    if any(value.is_meta for value in own.values() if isinstance(value, Tensor)):
        raise CheckpointError(f'{name} cannot be loaded into a model on the meta device: call model.to_empty first.')
    trunk = _trunk(model)
    if trunk is not None and not source.origin.models:
        first = ', '.join(list(source.weights)[:3])
        raise CheckpointError(f'{name} holds no Context Cluster weights: its first names are {first}.')
    denominator, evidence = agreed_denominator(model, source, name)
    if trunk is not None and strict and not fresh_mixers:
        check_mixer(trunk, source, name)
    weights, unused = source.origin.place(source, own, trunk)
    fresh = source.origin.fresh(source, own, weights)
    if fresh_mixers:
        replaced = {key for key in weights if _MIXER.search(key) and not _alike(weights[key], own.get(key))}
        unused += tuple(sorted(replaced))
        weights = {key: value for key, value in weights.items() if key not in replaced}
        fresh = tuple(dict.fromkeys([*fresh, *(key for key in own if _MIXER.search(key) and key not in weights)]))
    problems, unfit = _mismatches(own, weights, finite=source.origin.finite)
    problems += _left_over(source.unknown)
    if problems and strict:
        raise CheckpointError(_misfit(name, source, problems, own, weights))
    taken = {k: v for k, v in weights.items() if k not in unfit}
    told = {*fresh, *(key for key in weights if key not in taken)}
    problems += _take_over(model, own, taken, told, lambda found: _misfit(name, source, found, own, weights), strict)
    return Report(
        name=name,
        origin=source.title,
        loaded=len(taken.keys() & own.keys()),
        translated=source.translated,
        fresh=fresh,
        unused=unused,
        denominator=denominator,
        evidence=evidence,
        problems=tuple(problems),
        otherwise=differences(getattr(model, 'backbone', model) if trunk is None else trunk, source),
    )


def tell_differences(report: Report) -> None:
    """Warn of what a model computes otherwise, where a report is not printed."""
    if report.otherwise:
        logging.getLogger(__name__).warning('%s was trained %s.', report.name, '; '.join(report.otherwise))


def _unwrapped(model: nn.Module) -> nn.Module:
    """Return the model within what parallel training and `torch.compile` put around it."""
    while isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)) or hasattr(model, '_orig_mod'):
        model = model._orig_mod if hasattr(model, '_orig_mod') else model.module  # type: ignore[assignment]
    return model


def _trunk(model: nn.Module) -> ContextCluster | None:
    return next((module for module in model.modules() if isinstance(module, ContextCluster)), None)


def _alike(theirs: Tensor, mine: Tensor | None) -> bool:
    return mine is not None and theirs.shape == mine.shape


def check_mixer(trunk: ContextCluster, source: Source, name: str) -> None:
    """Raise CheckpointError where a file tells that its weights were trained with another mixer than the model's."""
    if source.mixer is not None and source.mixer not in trunk.mixer_names:
        raise CheckpointError(
            f'{name} was trained with the mixer {source.mixer}, but the model was built with '
            f'{" or ".join(sorted(trunk.mixer_names))}: build it with that mixer, or allow it to start from these '
            'weights with coc_core.checkpoints.load(..., fresh_mixers=True), in a config by fresh_mixers=True in the '
            "backbone's init_cfg."
        )


def agreed_denominator(model: nn.Module, source: Source, name: str) -> tuple[str | None, str]:
    """Return the model's denominator (None without clustering layers) and what tells that it is the weights'.

    Raises:
        CheckpointError: The weights were trained with another.
    """
    trunk = _trunk(model)
    if trunk is None:
        return None, ''
    own = trunk.config.denominator
    trained = source.denominator
    if trained.name is None:
        return own, "assumed, as the model was built: the file does not tell. Files of March 2023 need 'count'"
    if trained.name not in DENOMINATORS:
        raise CheckpointError(
            f'{name} records the denominator {trained.name!r}: it is none of {", ".join(DENOMINATORS)}.'
        )
    if trained.name != own:
        raise CheckpointError(
            f'{name} was trained with denominator={trained.name!r} ({trained.evidence}), but the model was built '
            f'with denominator={own!r}: build it with denominator={trained.name!r}.'
        )
    return own, trained.evidence


def _mismatches(
    own: Mapping[str, Tensor], weights: Mapping[str, Tensor], *, finite: bool
) -> tuple[list[str], set[str]]:
    """Return what keeps tensors from being taken over where the name fits, and their names.

    Other models may hold masks of infinity: ``finite`` says whether that is a fault.
    """
    shapes, types, wild = {}, {}, {}
    for key in [key for key in own if key in weights]:
        mine, theirs = own[key], weights[key]
        if theirs.is_nested or theirs.is_meta or theirs.layout != mine.layout or _is_number(theirs) != _is_number(mine):
            types[key] = f'{key} {_kind(theirs)} where the model has {_kind(mine)}'
        elif theirs.shape != mine.shape:
            shapes[key] = f'{key} {list(theirs.shape)} where the model has {list(mine.shape)}'
        elif finite and _is_number(mine) and not bool(torch.isfinite(theirs.to(mine.dtype)).all()):
            wild[key] = key
    listed = (list(shapes.values()), 'of another shape'), (list(types.values()), 'of another type')
    return _sentences(*listed, (list(wild), 'not finite')), {*shapes, *types, *wild}


def _is_number(value: Tensor) -> bool:
    return value.is_floating_point() and not value.is_quantized


def _kind(value: Tensor) -> str:
    words = (str(value.dtype), *(['meta'] if value.is_meta else []), str(value.layout))
    return ' '.join(word.removeprefix('torch.') for word in words if word != 'torch.strided')


def _left_over(unknown: Mapping[str, Any]) -> list[str]:
    return _sentences(([_described(key, value) for key, value in unknown.items()], 'unexpected'))


def _take_over(
    model: nn.Module,
    own: Mapping[str, Tensor],
    weights: Mapping[str, Tensor],
    told: Container[str],
    misfit: Callable[[list[str]], str],
    strict: bool,
) -> list[str]:
    """Load the weights; where names do not fit, strictly leave the model as it was.

    Only loading runs the hooks by which the libraries' modules rename old names.
    """
    before = {key: value.clone() for key, value in own.items() if isinstance(value, Tensor)}
    try:
        result = model.load_state_dict(dict(weights), strict=False)
    except RuntimeError as error:
        model.load_state_dict(before, strict=False)
        raise CheckpointError(misfit([' '.join(str(error).split())])) from error
    # A module that renames its weights in checkpoints (mmpretrain's TimmClassifier) misses them by its own names.
    missing = [_described(key, own.get(key)) for key in result.missing_keys if key not in told]
    unexpected = [_described(key, weights.get(key)) for key in result.unexpected_keys]
    problems = _sentences((missing, 'missing'), (unexpected, 'unexpected'))
    if problems and strict:
        model.load_state_dict(before, strict=False)
        raise CheckpointError(misfit(problems))
    return problems


def _misfit(
    name: str, source: Source, problems: list[str], own: Mapping[str, Tensor], weights: Mapping[str, Tensor]
) -> str:
    whole = any(key.startswith('backbone.stages.') for key in own)
    advice = 'build the model that the checkpoint belongs to, or name a checkpoint of this one'
    odd = [key for key in {**own, **weights} if not (key in own and _alike(own[key], weights.get(key)))]
    differing = [key for key in own if key in weights and own[key].shape != weights[key].shape]
    is_classifier = any(layout.classifier and f'{layout.classifier}weight' in own for layout in LAYOUTS.values())
    if whole and source.origin.starts_a_backbone(source) and not is_classifier:
        advice = 'start its backbone from such a file by backbone.init_cfg=dict(type="Pretrained", checkpoint=...)'
    elif differing and all(re.match(r'head\.(fc\.)?(weight|bias)$', key) for key in differing):
        classes = len(weights[differing[0]])
        advice = f'build it with num_classes={classes}, or with num_classes=0 and call reset_classifier after loading'
    elif odd and all(_MIXER.search(key) for key in odd):
        advice = 'build it with the mixer of these weights, or allow it to start from them with fresh_mixers=True'
    return f'{name} ({source.title}) does not fit the model: {"; ".join(problems)}. To mend it, {advice}.'


def _sentences(*listed: tuple[list[str], str]) -> list[str]:
    return [f'{len(names)} {what} ({_listing(names)})' for names, what in listed if names]


def _described(key: str, value: Any) -> str:
    if isinstance(value, Tensor):
        return f'{key} {list(value.shape)}'
    return key if value is None else f'{key} ({type(value).__name__})'


def _listing(names: Iterable[str], shown: int = 3) -> str:
    names = list(names)
    return ', '.join(names[:shown]) + (f', and {len(names) - shown} more' if len(names) > shown else '')
