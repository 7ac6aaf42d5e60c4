"""Results as tables and as files."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prettytable import PrettyTable, TableStyle

from coc_core.errors import UserError
from coc_core.files import write_bytes

Row = Mapping[str, Any]

MODEL_COLUMNS = (
    'model',
    'mode',
    'ms per batch (min..max)',
    'images/s',
    'x reference (min..max)',
    'peak MiB',
    'of reference',
    'GFLOP',
    'parameters',
    'bound ms',
    'reached',
)
OPERATOR_COLUMNS = (
    'operator',
    'mode',
    'ms (min..max)',
    'x reference (min..max)',
    'peak MiB',
    'of reference',
    'GFLOP',
    'MiB moved',
    'of copy bandwidth',
)


def render(results: Mapping[str, Any], *, markdown: bool) -> str:
    """Return everything that was measured as text: the machine and the tables."""
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


def _model_cells(row: Row) -> list[str]:
    return [
        row['name'],
        row['mode'],
        _with_range(row['seconds_per_batch'], 1e3),
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
        _with_range(row['seconds_per_batch'], 1e3),
        _ratio(row),
        f'{row["peak_memory_bytes"] / 2**20:.1f}',
        '' if row['memory_ratio'] is None else f'{row["memory_ratio"]:.2f}',
        f'{row["flops"] / 1e9:.2f}',
        f'{row["bytes"] / 2**20:.1f}',
        f'{row["bandwidth_reached"]:.0%}',
    ]


def _ratio(row: Row) -> str:
    return '' if row['speed_ratio'] is None else _with_range(row['speed_ratio'], 1, digits=2)


def _with_range(values: Mapping[str, float], scale: float, digits: int = 1) -> str:
    median, low, high = (f'{values[key] * scale:.{digits}f}' for key in ('median', 'min', 'max'))
    return f'{median} ({low}..{high})'


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], markdown: bool) -> str:
    table = PrettyTable(header)
    table.set_style(TableStyle.MARKDOWN if markdown else TableStyle.SINGLE_BORDER)
    table.align = 'r'
    table.align[table.field_names[0]] = table.align['mode'] = 'l'
    table.add_rows([list(row) for row in rows])
    return table.get_string()


def check_writable(path: Path) -> None:
    """Raise UserError unless a result can be written there."""
    if path.is_dir() or path.suffix != '.json' or not path.parent.is_dir():
        raise UserError(f'--out {path}: name a .json file in a folder that exists.')
    if not os.access(path.parent, os.W_OK):
        raise UserError(f'--out {path}: its folder cannot be written to.')


def write(results: Mapping[str, Any], path: Path) -> None:
    """Write the results, whole or not at all.

    Raises:
        UserError: The file cannot be written.
    """
    text = json.dumps(results, indent=1) + '\n'
    write_bytes(path, text.encode())


def read(path: Path) -> dict[str, Any]:
    """Read results.

    Raises:
        UserError: There are none.
    """
    try:
        results: dict[str, Any] = json.loads(path.read_text())
        caption(results)
        if not results['rows']:
            raise KeyError('rows')
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f'{path} holds no results of this tool.') from error
    return results
