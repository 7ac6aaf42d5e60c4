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
from contextlib import nullcontext, redirect_stdout
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from coc_core.mm.requirements import require

require('mmengine')

from coc_core.mm.cli.options import add_config_options
from coc_core.mm.cli.start import run_tool
from coc_core.mm.configs import load_config
from coc_core.mm.data_checks.reports import PHASES, reports_of


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('config', help='the config file')
    parser.add_argument('--phase', nargs='+', choices=PHASES, default=PHASES, help='which data (default: all)')
    parser.add_argument('--workers', type=int, default=os.cpu_count(), help='processes (default: one a core)')
    parser.add_argument('--json', action='store_true', help='print one JSON object instead of lines')
    add_config_options(parser)
    return parser.parse_args()


def check(args: argparse.Namespace) -> int:
    """Check every data set of the config; returns the number of errors."""
    reports = []
    # What libraries print is no part of a JSON object.
    with redirect_stdout(sys.stderr) if args.json else nullcontext():
        cfg = load_config(args.config, args.cfg_options)
        for report in reports_of(cfg, args.phase, args.workers):
            reports.append(report)
            if not args.json:
                print(report)
    errors = sum(report.errors for report in reports)
    if args.json:
        print(json.dumps(dict(errors=errors, data=[asdict(report) for report in reports])))
    elif not reports:
        print(f'{args.config} names no data that can be checked.')
    else:
        print(f'{errors} errors.' if errors else 'No errors.')
    return errors


def main() -> int:
    """Run the tool."""
    errors: list[int] = []
    code = run_tool(lambda args: errors.append(check(args)), parse_args())
    return code or int(any(errors))


if __name__ == '__main__':
    sys.exit(main())
