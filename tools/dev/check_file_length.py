#!/usr/bin/env python3
"""Fail when a source file is longer than 400 lines."""

import os
import sys
from pathlib import Path

LIMIT = 400
SUFFIXES = {'.py', '.sh'}
# What is made here, as .gitignore has it.
MADE = {'build', 'data', 'dist', 'pictures', 'predictions', 'wandb', 'work_dirs'}


def main() -> None:
    """Name every source file over the limit."""
    lengths = {}
    for folder, folders, files in os.walk('.'):
        folders[:] = [name for name in folders if not name.startswith('.') and not (folder == '.' and name in MADE)]
        paths = [Path(folder, name) for name in files if Path(name).suffix in SUFFIXES]
        lengths.update({path: len(path.read_text().splitlines()) for path in paths})
    long = {path: length for path, length in lengths.items() if length > LIMIT}
    if long:
        sys.exit('\n'.join(f'{path} has {length} lines, more than {LIMIT}: split it.' for path, length in long.items()))


if __name__ == '__main__':
    main()
