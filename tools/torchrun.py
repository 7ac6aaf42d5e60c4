#!/usr/bin/env python
"""torchrun, except that a user's mistake stays the last thing on the terminal: no launcher's stack trace after it."""

from __future__ import annotations

import logging
import sys

from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import main

# The code with which tools/train.py and tools/test.py leave after their one sentence.
USER_MISTAKE = 2


if __name__ == '__main__':
    # What they report of a failed process, the exception's table says again.
    for name in ('multiprocessing.api', 'agent.server.api'):
        logging.getLogger(f'torch.distributed.elastic.{name}').setLevel(logging.CRITICAL)
    try:
        main()
    except ChildFailedError as error:
        codes = {failure.exitcode for failure in error.failures.values()}
        if USER_MISTAKE not in codes:
            raise
        sys.exit(USER_MISTAKE)
