#!/usr/bin/env python
"""Compile the Triton kernels for GPUs that need not be there: instructions, registers, shared memory, spills.

python tools/analysis_tools/inspect_kernels.py [--architecture 90] [--precision bf16] [--shape coc_tiny] [--out JSON]
python tools/analysis_tools/inspect_kernels.py --render benchmarks/results/kernels.json
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
os.environ['TRITON_INTERPRET'] = '0'

from benchmarks import kernels
from coc_core.errors import UserError
from coc_core.files import write_bytes
from coc_core.mm.cli.start import run_tool


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    choices = dict(nargs='+', choices=kernels.ARCHITECTURES, default=[90])
    parser.add_argument('--architecture', type=int, help='ten times the compute capability of a GPU', **choices)
    parser.add_argument('--precision', nargs='+', choices=kernels.PRECISIONS, default=list(kernels.PRECISIONS))
    parser.add_argument('--shape', default='', help='only shapes whose name has this in it, such as coc_tiny')
    parser.add_argument('--out', type=Path, help='write all figures to this JSON file')
    parser.add_argument('--render', type=Path, metavar='JSON', help='print the table of a file that --out has written')
    return parser.parse_args()


def inspect(args: argparse.Namespace) -> dict[str, Any]:
    """Compile what is asked for; print a line for each kernel."""
    shapes = [shape for shape in kernels.inspected_shapes() if args.shape in shape.name]
    if not shapes:
        names = ', '.join(shape.name for shape in kernels.inspected_shapes())
        raise UserError(f'--shape {args.shape!r} is in the name of no shape: {names}.')
    cases = []
    for architecture in args.architecture:
        for shape in shapes:
            for precision in args.precision:
                figures = kernels.inspect(shape, precision, architecture)
                for f in figures:
                    print(
                        f'sm_{architecture} {precision} {shape.name:32} {f.kernel:22} {f.warps} warps, '
                        f'{f.registers:3} registers, {f.shared_bytes:6} bytes shared, {f.spilled_bytes:4} spilled, '
                        f'{f.instructions:6} instructions',
                        flush=True,
                    )
                forward, backward = kernels.per_point(figures, shape)
                case = dict(architecture=architecture, precision=precision, shape=str(shape))
                case |= dict(centers=shape.center_grid**2, dim=shape.dim)
                per_point = dict(forward=round(forward, 1), backward=round(backward, 1))
                cases.append(case | per_point | dict(kernels=[f._asdict() for f in figures]))
    return dict(versions={name: version(name) for name in ('torch', 'triton')}, cases=cases)


def render(result: dict[str, Any]) -> str:
    """Return a Markdown table, a row for each shape, precision and architecture."""
    lines = ['| shape | precision | sm | forward | backward | registers | shared | spilled |']
    lines.append('|:--|:--|--:|--:|--:|--:|--:|--:|')
    for case in result['cases']:
        most = [max(k[name] for k in case['kernels']) for name in ('registers', 'shared_bytes', 'spilled_bytes')]
        cells = [case['shape'], case['precision'], case['architecture'], case['forward'], case['backward'], *most]
        lines.append('| ' + ' | '.join(f'{cell:,}' if isinstance(cell, int) else str(cell) for cell in cells) + ' |')
    return '\n'.join(lines)


def main(args: argparse.Namespace) -> None:
    """Inspect, or render."""
    if args.render:
        print(render(json.loads(args.render.read_text())))
        return
    result = inspect(args)
    if args.out:
        write_bytes(args.out, (json.dumps(result, indent=1) + '\n').encode())
        print(args.out)


if __name__ == '__main__':
    sys.exit(run_tool(main, parse_args()))
