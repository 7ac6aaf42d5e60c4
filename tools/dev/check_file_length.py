#!/usr/bin/env python3
"""Fail when a source file is longer than 400 lines."""

import subprocess
import sys
from pathlib import Path

LIMIT = 400
SUFFIXES = {'.py', '.sh'}


def main() -> None:
    """Name every tracked or new source file over the limit."""
    listed = subprocess.run(
        ['git', 'ls-files', '--cached', '--others', '--exclude-standard'], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    lengths = {
        p: len(Path(p).read_text().splitlines()) for p in listed if Path(p).suffix in SUFFIXES and Path(p).exists()
    }
    long = {path: length for path, length in lengths.items() if length > LIMIT}
    if long:
        sys.exit('\n'.join(f'{path} has {length} lines, more than {LIMIT}: split it.' for path, length in long.items()))


if __name__ == '__main__':
    main()
