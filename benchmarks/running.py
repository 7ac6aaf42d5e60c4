"""Runs cases and gathers their rows."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from benchmarks.candidates import Candidate, check_case, model_candidates, operator_candidates
from benchmarks.cases import Case, ModelCase
from benchmarks.machine import bounds, describe
from benchmarks.measuring import busy_processes, interleave, median_and_range, paired_ratios, peak_memory, warm_up
from coc_core.errors import UserError

Row = dict[str, Any]


def run(
    cases: Sequence[Case],
    *,
    precisions: tuple[str, ...],
    impls: tuple[str, ...],
    reference: bool,
    device: torch.device,
    tell: Callable[[str], None],
) -> Iterator[dict[str, Any]]:
    """Measure cases; yield all results so far after each, as a long run may be ended from outside.

    Args:
        cases: What is measured; the candidates of each take turns.
        precisions: Of autocast; the operator gets inputs of that type.
        impls: Of the clustering operator.
        reference: Measure the reference model too.
        device: Where.
        tell: Called with a line when something begins.

    Yields:
        ``machine``, ``bounds`` and ``rows``, all of plain values: see `docs/benchmarks.md`.

    Raises:
        UserError: Something is unknown, impossible or not equal to the reference model.
    """
    tell('the rates of the machine')
    limits = bounds(device, precisions)
    rows = []
    for case in cases:
        for precision in precisions:
            tell(f'{case.label}, {precision}: equality with the reference form')
            check_case(case, precision=precision, impls=impls, device=device)
            for mode in case.modes:
                tell(f'{case.label}, {mode}, {precision}')
                build = model_candidates if isinstance(case, ModelCase) else operator_candidates
                candidates = build(
                    case, mode=mode, precision=precision, impls=impls, reference=reference, device=device
                )
                shared = {'case': case.label, **_facts(case, precision), 'mode': mode, 'precision': precision}
                rows += [shared | row for row in _measure(candidates, case, limits[precision], device)]
                del candidates
                gc.collect()
        yield {'machine': describe(device), 'bounds': limits, 'rows': rows}


def _facts(case: Case, precision: str) -> Row:
    if isinstance(case, ModelCase):
        return {'kind': 'model', 'dense': case.dense, 'size': list(case.size), 'batch_size': case.batch_size}
    element_size = 4 if precision == 'fp32' else 2
    return {
        'kind': 'operator',
        'size': list(case.shape[1:3]),
        'batch_size': case.shape[0],
        'fits_on_chip': case.fits_on_chip(element_size),
    }


def _measure(candidates: Sequence[Candidate], case: Case, limits: dict[str, float], device: torch.device) -> list[Row]:
    steps = {candidate.name: candidate.step for candidate in candidates}
    try:
        counts = {name: warm_up(step, device) for name, step in steps.items()}
        memory = {name: peak_memory(step, device) for name, step in steps.items()}
        busy = describe(device)['cores'] if isinstance(case, ModelCase) and case.busy else 0
        with busy_processes(int(busy or 0)):
            seconds = interleave(steps, counts, case.rounds, device)
    except torch.OutOfMemoryError as error:
        raise UserError(f'{case.label} needs more memory than there is: choose a smaller batch.') from error
    rows = []
    for candidate in candidates:
        own = seconds[candidate.name]
        took = median_and_range(own)
        bound = max(candidate.flops / limits['gemm'], candidate.bytes / limits['copy'])
        row = {
            'name': candidate.name,
            'impl': candidate.impl,
            'seconds': own,
            'seconds_per_batch': took,
            'images_per_second': case_batch(case) / took['median'],
            'peak_memory_bytes': memory[candidate.name],
            'flops': candidate.flops,
            'bytes': candidate.bytes,
            'parameters': candidate.parameters,
            'bound_seconds': bound,
            'bound_reached': bound / took['median'],
            'bandwidth_reached': candidate.bytes / limits['copy'] / took['median'],
            'speed_ratio': None,
            'memory_ratio': None,
        }
        if candidate.reference is not None:
            row['speed_ratio'] = paired_ratios(seconds[candidate.reference], own)
            row['memory_ratio'] = memory[candidate.name] / max(1, memory[candidate.reference])
        rows.append(row)
    return rows


def case_batch(case: Case) -> int:
    """Return the images of a batch."""
    return case.batch_size if isinstance(case, ModelCase) else case.shape[0]
