#!/usr/bin/env python
"""Tell what of this environment is wrong, and the command that mends it.

python tools/doctor.py [--json] [--quick]

One line for each thing. Exit code 0: nothing is wrong; 1: something is.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

if 'coc_core' not in sys.modules:
    # The package imports torch and timm. Where these are missing or broken, that is what is to be told.
    specification = importlib.util.find_spec('coc_core')
    sys.modules['coc_core'] = importlib.util.module_from_spec(specification)

from coc_core.mm.doctor import examination
from coc_core.mm.doctor.findings import OK, WRONG, report


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--json', action='store_true', help='print one JSON object, for a report of a bug')
    parser.add_argument('--quick', action='store_true', help='run nothing on a GPU')
    return parser.parse_args()


def main() -> int:
    """Run the tool."""
    args = parse_args()
    found = []
    for finding in examination.examine(on_gpu=not args.quick):
        found.append(finding)
        if not args.json:
            print(finding, flush=True)
    wrong = sum(finding.state == WRONG for finding in found)
    if args.json:
        print(report(found))
    else:
        notes = sum(finding.state not in (OK, WRONG) for finding in found)
        print(f'\n{wrong or "Nothing"} of {len(found)} is wrong.' + (f' Notes: {notes}.' if notes else ''))
    return int(wrong > 0)


if __name__ == '__main__':
    sys.exit(main())
