"""Results as tables, and the goals beside what was reached."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prettytable import PrettyTable, TableStyle

from benchmarks.cases import BANDWIDTH_GOALS, GOAL_PRECISION, GOALS, Goal
from coc_core.mm.errors import LaunchError

Row = Mapping[str, Any]

MODEL_COLUMNS = (
    'model',
    'mode',
    'ms per batch (min..max)',
    'images/s',
    'x literal (min..max)',
    'peak MiB',
    'of literal',
    'GFLOP',
    'parameters',
    'bound ms',
    'reached',
)
OPERATOR_COLUMNS = (
    'operator',
    'mode',
    'ms (min..max)',
    'x literal (min..max)',
    'peak MiB',
    'of literal',
    'GFLOP',
    'MiB moved',
    'of copy bandwidth',
)
NOT_MEASURED = 'not measured'


def render(results: Mapping[str, Any], *, markdown: bool) -> str:
    """Return everything that was measured as text: the machine, the tables, the goals."""
    parts = [caption(results)]
    for kind, columns, cells in (
        ('model', MODEL_COLUMNS, _model_cells),
        ('operator', OPERATOR_COLUMNS, _operator_cells),
    ):
        rows = [row for row in results['rows'] if row['kind'] == kind]
        for case in dict.fromkeys((row['case'], row['precision']) for row in rows):
            chosen = [row for row in rows if (row['case'], row['precision']) == case]
            title = ', '.join((*case, f'median of {len(chosen[0]["seconds"])} rounds'))
            parts.append(f'{title}\n\n{_table(columns, [cells(row) for row in chosen], markdown)}')
    goals = goal_rows(results)
    if goals:
        header = ('goal', 'mode', 'wanted', 'reached', '')
        device, precision = results['machine']['device'], GOAL_PRECISION[results['machine']['device']]
        parts.append(f'Goals, {device}, {precision}\n\n{_table(header, [_goal_cells(g) for g in goals], markdown)}')
    return '\n\n'.join(parts)


def caption(results: Mapping[str, Any]) -> str:
    """Return hardware, versions, threads, date and the measured rates in one line each."""
    machine = results['machine']
    hardware = f'{machine["cpu"]}, {machine["cores"]} cores' + (f', {machine["gpu"]}' if machine['gpu'] else '')
    versions = ', '.join(f'{name} {machine[name] or "none"}' for name in ('torch', 'timm', 'triton', 'python'))
    rates = '; '.join(
        f'{precision}: {rate["gemm"] / 1e9:,.0f} GFLOP/s in a square product, {rate["copy"] / 1e9:,.1f} GB/s in a copy'
        for precision, rate in results['bounds'].items()
    )
    return f'{machine["device"]}: {hardware}; {machine["threads"]} threads; {versions}; {machine["date"]}.\n{rates}.'


def goal_rows(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return each goal with what was reached, None where the run has no such row; none where it has nothing of all."""
    device = results['machine']['device']
    goals = []
    for goal in GOALS:
        row = next((row for row in results['rows'] if _is_of(row, goal, GOAL_PRECISION[device])), None)
        reached = None
        if row is not None and row['speed_ratio'] is not None:
            reached = row['speed_ratio']['median'] if goal.quantity == 'speed' else row['memory_ratio']
        name = f'{goal.model}, {goal.size[0]}x{goal.size[1]}, {goal.quantity}'
        goals.append(_goal(name, goal.mode, goal.values[device], reached, at_most=goal.quantity == 'memory'))
    if device == 'cuda':
        for row in results['rows']:
            if row['kind'] == 'operator' and row['impl'] == 'auto':
                wanted = BANDWIDTH_GOALS[row['fits_on_chip']]
                name = f'{row["case"]}, {row["precision"]}, share of copy bandwidth'
                goals.append(_goal(name, row['mode'], wanted, row['bandwidth_reached']))
    return goals if any(goal['reached'] is not None for goal in goals) else []


def _is_of(row: Row, goal: Goal, precision: str) -> bool:
    return (row['name'], tuple(row['size']), row['mode'], row['precision']) == (
        goal.model,
        goal.size,
        goal.mode,
        precision,
    )


def _goal(name: str, mode: str, wanted: float, reached: float | None, at_most: bool = False) -> dict[str, Any]:
    met = None if reached is None else (reached <= wanted if at_most else reached >= wanted)
    return {'goal': name, 'mode': mode, 'wanted': wanted, 'at_most': at_most, 'reached': reached, 'met': met}


def _goal_cells(goal: Row) -> list[str]:
    wanted = f'{"<=" if goal["at_most"] else ">="} {goal["wanted"]:g}'
    if goal['reached'] is None:
        return [goal['goal'], goal['mode'], wanted, NOT_MEASURED, '']
    return [goal['goal'], goal['mode'], wanted, f'{goal["reached"]:.2f}', 'met' if goal['met'] else 'missed']


def _model_cells(row: Row) -> list[str]:
    return [
        row['name'],
        row['mode'],
        _spread(row['seconds_per_batch'], 1e3),
        f'{row["images_per_second"]:.1f}',
        _ratio(row),
        f'{row["peak_memory_bytes"] / 2**20:.0f}',
        '' if row['memory_ratio'] is None else f'{row["memory_ratio"]:.2f}',
        f'{row["flops"] / 1e9:.1f}',
        f'{row["parameters"]:,}',
        f'{row["bound_seconds"] * 1e3:.1f}',
        f'{row["bound_reached"]:.0%}',
    ]


def _operator_cells(row: Row) -> list[str]:
    return [
        row['name'],
        'forward' if row['mode'] == 'eval' else 'forward and backward',
        _spread(row['seconds_per_batch'], 1e3),
        _ratio(row),
        f'{row["peak_memory_bytes"] / 2**20:.1f}',
        '' if row['memory_ratio'] is None else f'{row["memory_ratio"]:.2f}',
        f'{row["flops"] / 1e9:.2f}',
        f'{row["bytes"] / 2**20:.1f}',
        f'{row["bandwidth_reached"]:.0%}',
    ]


def _ratio(row: Row) -> str:
    return '' if row['speed_ratio'] is None else _spread(row['speed_ratio'], 1, digits=2)


def _spread(values: Mapping[str, float], scale: float, digits: int = 1) -> str:
    median, low, high = (f'{values[key] * scale:.{digits}f}' for key in ('median', 'min', 'max'))
    return f'{median} ({low}..{high})'


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], markdown: bool) -> str:
    # A last column of verdicts has no name, and prettytable wants each to have one.
    table = PrettyTable([name or 'verdict' for name in header])
    table.set_style(TableStyle.MARKDOWN if markdown else TableStyle.SINGLE_BORDER)
    table.align = 'r'
    table.align[table.field_names[0]] = table.align['mode'] = 'l'
    table.add_rows([list(row) for row in rows])
    return table.get_string()


def check_writable(path: Path) -> None:
    """Raise LaunchError unless a result can be written there."""
    if path.is_dir() or path.suffix != '.json' or not path.parent.is_dir():
        raise LaunchError(f'--out {path}: name a .json file in a folder that exists.')
    if not os.access(path.parent, os.W_OK):
        raise LaunchError(f'--out {path}: its folder cannot be written to.')


def write(results: Mapping[str, Any], path: Path) -> None:
    """Write the results with their goals, whole or not at all.

    Raises:
        LaunchError: The file cannot be written.
    """
    text = json.dumps({**results, 'goals': goal_rows(results)}, indent=1) + '\n'
    try:
        with tempfile.TemporaryDirectory(dir=path.parent, prefix='.') as folder:
            beside = Path(folder) / path.name
            beside.write_text(text)
            os.replace(beside, path)
    except OSError as error:
        raise LaunchError(f'{path} cannot be written: {error.strerror}.') from error


def read(path: Path) -> dict[str, Any]:
    """Read results.

    Raises:
        LaunchError: There are none.
    """
    try:
        results: dict[str, Any] = json.loads(path.read_text())
        caption(results)
        if not results['rows']:
            raise KeyError('rows')
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise LaunchError(f'{path} holds no results of this tool.') from error
    return results
