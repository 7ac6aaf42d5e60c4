#!/usr/bin/env python
"""torchrun, except that a user's mistake stays the last thing on the terminal: no launcher's stack trace after it."""

from __future__ import annotations

import logging
import sys

from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import main

# The code with which tools/train.py and tools/test.py leave after their one sentence.
USER_MISTAKE = 2


class _NoFailureReports(logging.Filter):
    """Drops the agent's report that a process failed; an unexpected failure's table comes with the exception."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith(('failed (exitcode', 'Sending process', 'Closing process'))


if __name__ == '__main__':
    for name in ('torch.distributed.elastic.multiprocessing.api', 'torch.distributed.elastic.agent.server.api'):
        logging.getLogger(name).addFilter(_NoFailureReports())
    try:
        main()
    except ChildFailedError as error:
        codes = {failure.exitcode for failure in error.failures.values()}
        if USER_MISTAKE not in codes:
            raise
        sys.exit(USER_MISTAKE)
