#!/usr/bin/env python
"""List everything that is wrong with the data of a config.

python tools/dataset_converters/check_data.py CONFIG [--phase train ...] [--json]

Opens every image and label map to its end. Exit code 0: no errors; 1: there are; 2: the command or the config is wrong.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext, redirect_stdout
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from coc_core.mm.requirements import require

require('mmengine')

from mmengine.config import Config
from rich.console import Console
from rich.progress import track

from coc_core.errors import UserError
from coc_core.mm.cli.options import add_config_options
from coc_core.mm.cli.start import run_tool
from coc_core.mm.configs import load_config
from coc_core.mm.data_checks.batches import check_loading
from coc_core.mm.data_checks.checks import check_data, inspections
from coc_core.mm.data_checks.inspection import Inspection, Sample
from coc_core.mm.data_checks.problems import Problem

PHASES = ('train', 'val', 'test')


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('config', help='the config file')
    parser.add_argument('--phase', nargs='+', choices=PHASES, default=PHASES, help='which data (default: all)')
    parser.add_argument('--workers', type=int, default=os.cpu_count(), help='processes (default: one a core)')
    parser.add_argument('--json', action='store_true', help='print one JSON object instead of lines')
    add_config_options(parser)
    return parser.parse_args()


@dataclass
class Report:
    """What was found in one data set."""

    name: str
    summary: str
    problems: list[dict[str, str]]

    @property
    def errors(self) -> int:
        """The number of problems that training must not begin with."""
        return sum(problem['level'] == 'error' for problem in self.problems)


def check(args: argparse.Namespace) -> int:
    """Check every data set of the config; returns the number of errors."""
    reports = []
    # What libraries print is no part of a JSON object.
    with redirect_stdout(sys.stderr) if args.json else nullcontext():
        cfg = load_config(args.config, args.cfg_options)
        for report in reports_of(cfg, args.phase, args.workers):
            reports.append(report)
            if not args.json:
                print(f'{report.name}: {report.summary or "no size known"}')
                for problem in report.problems:
                    print(f'  {problem["level"]}: {problem["text"]}')
    errors = sum(report.errors for report in reports)
    if args.json:
        print(json.dumps(dict(errors=errors, data=[asdict(report) for report in reports])))
    elif not reports:
        print(f'{args.config} names no data that can be checked.')
    else:
        print(f'{errors} errors.' if errors else 'No errors.')
    return errors


def reports_of(cfg: Config, phases: Sequence[str], workers: int) -> Iterator[Report]:
    """Yield what is wrong with each data set: where files are there and the classes fit, and then what is in them."""
    usable = []
    for phase in phases:
        if sentence := refused_by(lambda phase=phase: check_data(cfg, [phase], contents=False)):
            yield Report(f'{phase} data', 'cannot be used', [dict(level='error', text=sentence)])
        else:
            usable.append(phase)
    for inspection in inspections(cfg, usable, files=True):
        problems = [*inspection.problems, *open_samples(inspection, workers)]
        told = [dict(level=problem.level, text=str(problem)) for problem in problems]
        yield Report(inspection.name, inspection.summary, told)
        if any(problem.level == 'error' for problem in problems):
            usable = []
    for phase in usable:
        if sentence := refused_by(lambda phase=phase: check_loading(cfg, phase)):
            yield Report(f'{phase} data', 'cannot be loaded', [dict(level='error', text=sentence)])


def refused_by(run: Callable[[], None]) -> str | None:
    """Return the sentence with which a check refuses the data."""
    try:
        run()
    except UserError as error:
        return str(error)
    return None


def open_samples(inspection: Inspection, workers: int) -> list[Problem]:
    """Open every sample, with a progress bar on a terminal; returns the problems."""
    console = Console(stderr=True)
    with ProcessPoolExecutor(max(1, workers)) as pool:
        results = track(
            pool.map(open_sample, inspection.samples, chunksize=8),
            description='files',
            total=len(inspection.samples),
            console=console,
            disable=not console.is_terminal,
        )
        return list(inspection.opened(results))


def open_sample(sample: Callable[[], Sample]) -> Sample:
    """Open one sample, in a process of its own."""
    return sample()


def main() -> int:
    """Run the tool."""
    errors: list[int] = []
    code = run_tool(lambda args: errors.append(check(args)), parse_args())
    return code or int(any(errors))


if __name__ == '__main__':
    sys.exit(main())
