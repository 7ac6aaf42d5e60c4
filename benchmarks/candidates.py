"""What is timed side by side: Context Clusters, their reference form, other mixers, models of timm, the operator."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import timm
import torch
from torch import Tensor, nn

import coc_core
from benchmarks.cases import Case, ModelCase, OperatorCase, split_name
from benchmarks.counting import count_flops, nbytes, parameter_count, plain_copy, tensors_of
from benchmarks.equality import check_compiled, check_model, check_operator
from benchmarks.machine import DTYPES
from coc_core.errors import UserError, did_you_mean
from coc_core.mixers import MixerFactory
from coc_core.ops import cluster
from coc_core.reference import classify_reference, dense_reference


@dataclass(frozen=True)
class Candidate:
    """Something that can be timed.

    Attributes:
        name: Of the row; the candidates of a run have different ones.
        step: One evaluation or training step.
        impl: Of the clustering operator; None for models of timm and mixers of one's own.
        flops: Of one step, see `count_flops`.
        bytes: Of one step, see `docs/benchmarks.md`.
        parameters: Number of parameters; None for the operator.
        reference: Name of the candidate that it is compared with.
    """

    name: str
    step: Callable[[], object]
    impl: str | None
    flops: int
    bytes: int
    parameters: int | None
    reference: str | None = None


def model_candidates(
    case: ModelCase, *, mode: str, precision: str, impls: tuple[str, ...], reference: bool, device: torch.device
) -> list[Candidate]:
    """Build the models of a case.

    Raises:
        UserError: A model is unknown or does not take the images.
    """
    torch.manual_seed(0)
    images = torch.randn(case.batch_size, 3, *case.size, device=device)
    candidates = []
    for name in case.models:
        for impl in dict.fromkeys([*impls, 'plain']) if case.compiled else impls:
            model = context_cluster(name, impl, case.dense).to(device)
            own = name if impl == 'auto' else f'{name} impl={impl}'
            forward = model.forward_dense if case.dense else model
            reference_name = f'{name} reference'
            counts = _model_counts(own, model, forward_name(case.dense), images, mode, case)
            reference_call = _reference(model, images, case) if reference else None
            calls = {own: lambda images, forward=forward: forward(images)}
            if reference_call is not None and reference_name not in [c.name for c in candidates]:
                calls[reference_name] = reference_call
            if case.compiled:
                calls[f'{own} compiled'] = compiled = torch.compile(forward)
                check_compiled(own, forward, compiled, images)
            for label, call in calls.items():
                step = model_step(model, call, images, mode, precision)
                is_own = label != reference_name
                candidates.append(
                    Candidate(
                        label,
                        step,
                        impl if is_own else 'reference',
                        *counts,
                        reference=reference_name if is_own and reference else None,
                    )
                )
    for name, model, method in _others(case):
        forward = getattr(model.to(device), method)
        counts = _model_counts(name, model, method, images, mode, case)
        calls = {name: forward}
        if case.compiled and isinstance(model, coc_core.ContextCluster):
            calls[f'{name} compiled'] = compiled = torch.compile(forward)
            check_compiled(name, forward, compiled, images)
        for label, call in calls.items():
            candidates.append(Candidate(label, model_step(model, call, images, mode, precision), None, *counts))
    return candidates


def _others(case: ModelCase) -> Iterator[tuple[str, nn.Module, str]]:
    """Name, model and method of what has no reference form: mixers of one's own, and models of timm."""
    for mixer in case.mixers:
        factory = mixer_by_name(mixer)
        for name in case.models:
            model = context_cluster(name, 'auto', case.dense, factory)
            yield f'{name} {mixer}', model, forward_name(case.dense)
    for name in case.peers:
        yield name, timm_model(name, case), 'forward'


def check_case(case: Case, *, precision: str, impls: tuple[str, ...], device: torch.device) -> None:
    """Compare the implementations of a case with the reference one: the operator as each stage uses it, and the models.

    Raises:
        UserError: One is unknown, cannot be run here, or is not equal.
    """
    for impl in impls:
        models: dict[str, coc_core.ContextCluster] = {}
        if isinstance(case, OperatorCase):
            uses = [(*case.shape[3:], case.center_grid, case.region_grid)]
        else:
            models = {name: context_cluster(name, impl, case.dense) for name in case.models}
            uses = [use for model in models.values() for use in _operator_uses(model.config)]
        for heads, dim, centers, regions in dict.fromkeys(uses):
            check_operator(impl, device, precision, heads=heads, dim=dim, center_grid=centers, region_grid=regions)
        for name, model in models.items():
            check_model(name, model, impl, device, batch_size=case.batch_size, size=case.size)


def _operator_uses(config: coc_core.CoCConfig) -> Iterable[tuple[int, int, int, int]]:
    return zip(config.heads, config.head_dim, config.center_grid, config.region_grid, strict=True)


def mixer_by_name(name: str) -> MixerFactory:
    """Return what builds a mixer, by its module and its name in it: ``distance_mixer:DistanceMixer``.

    Raises:
        UserError: There is none.
    """
    if ':' not in name:
        raise UserError(f'--mixer {name}: name a module and a class in it, such as distance_mixer:DistanceMixer.')
    try:
        factory: MixerFactory = pkgutil.resolve_name(name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(
            f'--mixer {name}: {error}. Name a module that Python finds (PYTHONPATH=. for one in this folder) and a '
            'class in it.'
        ) from error
    return factory


def context_cluster(name: str, impl: str, dense: bool, mixer: MixerFactory | None = None) -> coc_core.ContextCluster:
    """Build a Context Cluster by the name that a case gives it.

    Raises:
        UserError: It is unknown or impossible.
    """
    arch, center_grid = split_name(name)
    config = coc_core.variants.get_config(arch).override(impl=impl)
    config = config if center_grid is None else config.override(center_grid=center_grid)
    return coc_core.ContextCluster(config, dense_indices=range(config.num_stages) if dense else (), mixer=mixer)


def timm_model(name: str, case: ModelCase) -> nn.Module:
    """Build a model of timm, randomly initialized.

    Raises:
        UserError: It is unknown, or gives no feature maps where the case is dense.
    """
    if not timm.is_model(name):
        raise UserError(f'timm has no model {name!r}.{did_you_mean(name, timm.list_models())}')
    try:
        return timm.create_model(name, pretrained=False, **({'features_only': True} if case.dense else {}))
    except (RuntimeError, ValueError, TypeError) as error:
        raise UserError(f'{name} gives no feature maps: {error}') from error


def forward_name(dense: bool) -> str:
    """Name of a Context Cluster's method that is measured."""
    return 'forward_dense' if dense else 'forward'


def _reference(model: coc_core.ContextCluster, images: Tensor, case: ModelCase) -> Callable[[Tensor], Any]:
    side = model.size_divisibility
    if any(n % side for n in images.shape[2:]):
        raise UserError(
            f'The reference model takes sizes that divide by {side}, which {case.size[0]}x{case.size[1]} does not: '
            'change --size, or say --no-reference.'
        )
    call = dense_reference if case.dense else classify_reference
    return lambda images: call(model, images)


def _model_counts(
    name: str, model: nn.Module, method: str, images: Tensor, mode: str, case: ModelCase
) -> tuple[int, int, int]:
    """FLOPs, bytes, parameters."""
    plain = plain_copy(model).train(mode == 'train')
    examples = images.to('meta')
    try:
        with torch.no_grad():
            outputs = tensors_of(getattr(plain, method)(examples))
        flops = count_flops(getattr(plain, method), [examples], mode)
    except (RuntimeError, ValueError, AssertionError, IndexError) as error:
        size = f'{case.size[0]}x{case.size[1]}'
        raise UserError(f'{name} does not take images of {size}: {" ".join(str(error).split())}') from error
    weights = nbytes(model.parameters())
    # In training each output's gradient comes in and each weight's goes out.
    moved = nbytes([images]) + (1 + (mode == 'train')) * (nbytes(outputs) + weights)
    return flops, moved, parameter_count(model)


def model_step(
    model: nn.Module, forward: Callable[[Tensor], Any], images: Tensor, mode: str, precision: str
) -> Callable[[], None]:
    """Return one step: forward, and in training backward from random gradients of the outputs to all parameters."""
    model.train(mode == 'train')
    if mode == 'eval':

        def evaluate() -> None:
            with torch.inference_mode(), _autocast(images.device, precision):
                forward(images)

        return evaluate

    # A step finds the last one's gradients, and adds to them: their memory is the optimizer's business.
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    upstream: list[Tensor] = []

    def train() -> None:
        with _autocast(images.device, precision):
            outputs = tensors_of(forward(images))
        if not upstream:
            upstream.extend(torch.randn_like(o) for o in outputs)
        torch.autograd.backward(outputs, upstream)

    return train


def _autocast(device: torch.device, precision: str) -> AbstractContextManager[None]:
    return torch.autocast(device.type, dtype=DTYPES[precision], enabled=precision != 'fp32')


def operator_candidates(
    case: OperatorCase, *, mode: str, precision: str, impls: tuple[str, ...], reference: bool, device: torch.device
) -> list[Candidate]:
    """Build the implementations of the operator.

    Raises:
        UserError: The shape is impossible.
    """
    torch.manual_seed(0)
    batch, height, width, heads, dim = case.shape
    options = dict(center_grid=case.center_grid, region_grid=case.region_grid)
    both = torch.randn(batch, height, width, 2, heads, dim, device=device, dtype=DTYPES[precision])
    points, values = (x.detach().requires_grad_(mode == 'train') for x in both.unbind(3))
    alpha, beta = (torch.full((1,), x, device=device).requires_grad_(mode == 'train') for x in (1.0, 0.0))
    upstream = torch.randn(case.shape, device=device, dtype=DTYPES[precision])
    leaves = [points, values, alpha, beta]
    names = [*impls, *(['reference'] if reference and 'reference' not in impls else [])]
    candidates = []
    # No autocast is known to `meta`, which half precision would be computed under.
    meta = [x.detach().to('meta', torch.float32).requires_grad_(mode == 'train') for x in leaves]
    flops = count_flops(lambda *x: cluster(*x, impl='plain', **options), meta, mode)
    # Forward reads points and values and writes the output; backward reads both and a gradient, and writes two.
    moved = nbytes([points]) * (8 if mode == 'train' else 3)
    for impl in names:

        def step(impl: str = impl) -> None:
            with torch.set_grad_enabled(mode == 'train'):
                out = cluster(*leaves, impl=impl, **options)
            if mode == 'train':
                torch.autograd.grad(out, leaves, upstream)

        compared = 'reference' if reference and impl != 'reference' else None
        candidates.append(Candidate(impl, step, impl, flops, moved, None, compared))
    return candidates
