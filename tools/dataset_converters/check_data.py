#!/usr/bin/env python
"""List everything that is wrong with the data of a config.

python tools/dataset_converters/check_data.py CONFIG [--phase train ...]

Opens every image and label map to its end. Exit code 0: nothing is wrong; 1: something is; 2: the config is.
"""

from __future__ import annotations

import argparse
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from coc_core.mm.requirements import require

require('mmengine')

from rich.console import Console
from rich.progress import track

from coc_core.errors import UserError
from coc_core.mm.cli.options import add_config_options
from coc_core.mm.cli.start import run_tool
from coc_core.mm.configs import load_config
from coc_core.mm.data_checks.checks import check_data, inspections
from coc_core.mm.data_checks.inspection import Inspection
from coc_core.mm.data_checks.problems import Problem

PHASES = ('train', 'val', 'test')


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('config', help='the config file')
    parser.add_argument('--phase', nargs='+', choices=PHASES, default=PHASES, help='which data (default: all)')
    parser.add_argument('--workers', type=int, default=os.cpu_count(), help='files read at once (default: one a core)')
    add_config_options(parser)
    return parser.parse_args()


def check(args: argparse.Namespace) -> int:
    """Check every data set of the config; returns the number of problems."""
    cfg = load_config(args.config, args.cfg_options)
    errors = 0
    for phase in args.phase:
        try:
            check_data(cfg, [phase], contents=False)
        except UserError as error:
            print(error)
            errors += 1
    if errors:
        return errors
    found = list(inspections(cfg, args.phase, files=True))
    for inspection in found:
        print(f'{inspection.name}: {inspection.summary or "no size known"}')
        problems = [*inspection.problems, *open_samples(inspection, args.workers)]
        for problem in problems:
            print(f'  {problem.level}: {problem}')
        errors += sum(problem.level == 'error' for problem in problems)
    if not found:
        print(f'{args.config} names no data that can be checked.')
    print(f'{errors} errors.' if errors else 'No errors.')
    return errors


def open_samples(inspection: Inspection, workers: int) -> list[Problem]:
    """Open every sample, with a progress bar on a terminal; returns the problems."""
    console = Console(stderr=True)
    with ThreadPoolExecutor(max(1, workers)) as pool:
        results = track(
            pool.map(lambda sample: sample(), inspection.samples),
            description='files',
            total=len(inspection.samples),
            console=console,
            disable=not console.is_terminal,
        )
        return list(inspection.opened(results))


def main() -> int:
    """Run the tool."""
    errors: list[int] = []
    code = run_tool(lambda args: errors.append(check(args)), parse_args())
    return code or int(any(errors))


if __name__ == '__main__':
    sys.exit(main())
