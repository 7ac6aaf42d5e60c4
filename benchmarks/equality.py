"""Whether an implementation computes what the reference one computes: no speed is told of one that does not.

A point that is as near to one center as to another may join either by rounding, and changes its whole cluster. So each
comparison may be tried on other numbers; a wrong implementation agrees on none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from benchmarks.counting import tensors_of
from benchmarks.machine import DTYPES
from coc_core import ContextCluster
from coc_core.errors import UserError
from coc_core.ops import cluster
from coc_core.reference import classify_reference, dense_reference

SEEDS = (0, 1, 2)
# Takes no float64.
SINGLE_PRECISION = ('triton',)
# Of the norm of the difference to the norm of what is wanted.
OPERATOR_TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5, torch.bfloat16: 2 * 2**-7, torch.float16: 2 * 2**-10}
MODEL_TOLERANCE = {torch.float64: 1e-8, torch.float32: 1e-2}
# Of hundreds of thousands of points some do change their center: 1.5 % were seen.
LARGE_TOLERANCE = {torch.float64: 1e-8, torch.float32: 5e-2}


class UnequalError(UserError):
    """An implementation is not equal to the reference one."""


def relative_difference(got: Tensor, want: Tensor) -> float:
    """Return the norm of the difference divided by the norm of ``want``; infinity where ``got`` is not finite."""
    difference = float((got.double() - want.double()).norm() / want.double().norm().clamp_min(1e-30))
    return difference if difference == difference else float('inf')


def check_operator(
    impl: str, device: torch.device, precision: str, *, heads: int, dim: int, center_grid: int, region_grid: int
) -> None:
    """Compare an implementation of `coc_core.ops.cluster` with the reference one on a small map of odd regions.

    Output and every gradient, both denominators, in float32, in ``precision``, and on a CPU in float64. Beside the
    tolerance an error of twice the reference one's in the same precision is allowed.

    Raises:
        UnequalError: They differ.
        UserError: The implementation cannot be run here.
    """
    regions = min(region_grid, 2)
    shape = 2, regions * (2 * center_grid + 1), regions * (center_grid + 2), 2, heads, dim
    dtypes = dict.fromkeys([torch.float32, DTYPES[precision], *([torch.float64] if device.type == 'cpu' else [])])
    for dtype in dtypes:
        for denominator in ('similarity', 'count'):
            options = dict(center_grid=center_grid, region_grid=regions, denominator=denominator)

            def excess(seed: int, dtype: torch.dtype = dtype, options: dict = options) -> float:
                got, reference, want = _operator_results(impl, shape, dtype, device, seed, options)
                floor = OPERATOR_TOLERANCE[dtype]
                return max(
                    relative_difference(g, w) / max(floor, 2 * relative_difference(x, w))
                    for g, x, w in zip(got, reference, want, strict=True)
                )

            _agree(
                excess,
                f'impl={impl!r} of the clustering operator is not equal to the reference one in {dtype} '
                f'(denominator {denominator!r}, {heads} heads of {dim}, {center_grid**2} centers)',
            )


def _operator_results(
    impl: str, shape: Sequence[int], dtype: torch.dtype, device: torch.device, seed: int, options: dict
) -> tuple[list[Tensor], ...]:
    """Output and gradients of the implementation, of the reference one, and of the reference one in float64."""
    generator = torch.Generator().manual_seed(seed)
    # As the projection makes them: both in one tensor.
    both = torch.randn(*shape, generator=generator, dtype=torch.float64).to(device, dtype)
    upstream = torch.randn(*both[:, :, :, 0].shape, generator=generator, dtype=torch.float64).to(device, dtype)
    results = []
    for name, precision in ((impl, dtype), ('reference', dtype), ('reference', torch.float64)):
        points, values = (x.detach().requires_grad_() for x in both.to(precision).unbind(3))
        of_scalars = torch.promote_types(precision, torch.float32)
        alpha, beta = (torch.tensor([x], dtype=of_scalars, device=device, requires_grad=True) for x in (1.7, -0.3))
        try:
            out = cluster(points, values, alpha, beta, impl=name, **options)
        except UserError as error:
            raise UserError(f'impl={name!r} cannot be run here: {error}') from error
        gradients = torch.autograd.grad(out, [points, values, alpha, beta], upstream.to(precision))
        results.append([out.detach(), *gradients])
    return tuple(results)


def check_model(
    name: str, model: ContextCluster, impl: str, device: torch.device, *, batch_size: int, size: tuple[int, int]
) -> None:
    """Compare a Context Cluster with the reference model, on the same images and random parameters.

    On a small image outputs and the gradients of all parameters, in float32 and float64; on a batch of the size that
    is timed, which is worked on in pieces, the outputs, in float64 on a CPU and in float32 on a GPU, whose kernels take
    no more. ``model`` is overwritten.

    Raises:
        UnequalError: They differ.
    """
    side = model.size_divisibility
    small = 2, (2 * side, 3 * side)
    # The reference model takes sizes that divide.
    large = batch_size, tuple(max(side, n // side * side) for n in size)
    large_dtype = torch.float64 if device.type == 'cpu' else torch.float32
    for dtype, tolerance, (batch, (height, width)), call in (
        *((dtype, tolerance, small, _outputs_and_gradients) for dtype, tolerance in MODEL_TOLERANCE.items()),
        (large_dtype, LARGE_TOLERANCE[large_dtype], large, _outputs),
    ):
        if dtype == torch.float64 and impl in SINGLE_PRECISION:
            continue
        model.to(device, dtype)
        shape = batch, model.config.in_channels, height, width

        def excess(
            seed: int,
            call: Callable[..., list[Tensor]] = call,
            dtype: torch.dtype = dtype,
            shape: tuple[int, ...] = shape,
            tolerance: float = tolerance,
        ) -> float:
            _fill(model, seed)
            images = torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(device, dtype)
            reference = dense_reference if model.dense_indices else classify_reference
            own = model.forward_dense if model.dense_indices else model
            got, want = call(model, lambda: own(images)), call(model, lambda: reference(model, images))
            return max(relative_difference(g, w) for g, w in zip(got, want, strict=True)) / tolerance

        _agree(excess, f'{name} with impl={impl!r} is not equal to the reference model in {dtype} at {height}x{width}')


def check_compiled(
    name: str, forward: Callable[[Tensor], object], compiled: Callable[[Tensor], object], images: Tensor
) -> None:
    """Compare what a compiled model makes of some images with what the model does.

    Raises:
        UnequalError: They differ.
    """
    with torch.no_grad():
        both = zip(tensors_of(compiled(images)), tensors_of(forward(images)), strict=True)
        difference = max(relative_difference(got, want) for got, want in both)
    if difference > LARGE_TOLERANCE[torch.float32]:
        raise UnequalError(f'{name} compiled differs from {name} by {difference:.1e}: nothing is timed.')


def _fill(model: nn.Module, seed: int) -> None:
    """Random parameters: at its initialization the layer scale hides what the layers compute."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator).to(parameter)
            if parameter.ndim > 1:
                parameter.copy_(noise / parameter[0].numel() ** 0.5)
            else:
                parameter.copy_((0.0 if name.endswith(('bias', 'beta')) else 0.5) + 0.2 * noise)


def _outputs(model: nn.Module, call: Callable[[], object]) -> list[Tensor]:
    with torch.inference_mode():
        return tensors_of(call())


def _outputs_and_gradients(model: nn.Module, call: Callable[[], object]) -> list[Tensor]:
    """Return outputs, all parameters' gradients in one, and outputs where no gradient is wanted."""
    outputs = tensors_of(call())
    upstream = [torch.linspace(-1, 1, o.numel()).to(o).view(o.shape).sin() for o in outputs]
    gradients = torch.autograd.grad(outputs, list(model.parameters()), upstream)
    return [*(o.detach() for o in outputs), torch.cat([g.flatten() for g in gradients]), *_outputs(model, call)]


def _agree(excess: Callable[[int], float], sentence: str) -> None:
    """Raise UnequalError with the sentence unless the error is allowed (at most 1) for one of the seeds."""
    smallest = float('inf')
    for seed in SEEDS:
        smallest = min(smallest, excess(seed))
        if smallest <= 1:
            return
    raise UnequalError(
        f'{sentence}: its error is {smallest:.1e} times what rounding explains. Its speed is not measured.'
    )
