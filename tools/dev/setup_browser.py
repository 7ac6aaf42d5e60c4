#!/usr/bin/env python3
"""See to the browser that the explorer's test drives: install Debian's Chromium where that is allowed, or say how.

``make test`` calls this; without a browser that one test is skipped.
"""

from __future__ import annotations

import os
import shutil
import subprocess

NAMES = ('chromium', 'chromium-browser', 'google-chrome')
PACKAGE = 'chromium'


def find_browser() -> str | None:
    """Return the path of a Chromium, or None."""
    return next(filter(None, map(shutil.which, NAMES)), None)


def main() -> None:
    """Install the browser, or say how."""
    if find_browser():
        return
    advice = f'The explorer is not tested: there is no Chromium (Debian: apt-get install {PACKAGE}).'
    if not shutil.which('apt-get') or os.geteuid() != 0:
        print(advice)
        return
    print(f'installing {PACKAGE} with apt-get, for the test of the explorer', flush=True)
    for command in (['update'], ['install', '-y', '--no-install-recommends', PACKAGE]):
        environment = {**os.environ, 'DEBIAN_FRONTEND': 'noninteractive'}
        if subprocess.run(['apt-get', '-q', *command], stdout=subprocess.DEVNULL, env=environment).returncode:
            print(advice)
            return


if __name__ == '__main__':
    main()
