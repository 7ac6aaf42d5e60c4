#!/usr/bin/env python
"""torchrun with this project's exit codes: what a training says of its end stays the last thing on the terminal."""

from __future__ import annotations

import logging
import signal
import sys
from typing import Any

from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher import api
from torch.distributed.run import main

# docs/training.md: a mistake, and the three ways to stop in order. To start again by itself would change nothing.
DECIDED = (2, 75, 130, 143)
CODES = {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGUSR1: 75}


class Agent(LocalElasticAgent):
    """Restarts a training that failed, and none that ended by its own decision."""

    def _monitor_workers(self, worker_group: Any) -> Any:
        result = super()._monitor_workers(worker_group)
        if any(failure.exitcode in DECIDED for failure in result.failures.values()):
            self._remaining_restarts = 0
        return result


def stop(number: int, frame: Any) -> None:
    """Pass a queue's warning on to the training, as torchrun does with SIGTERM and SIGINT."""
    raise SignalException(f'signal {number}', sigval=signal.Signals(number))


def exit_code(error: ChildFailedError) -> int:
    """Return the code of the process that decided, or else of the first that failed; tell of one that was killed."""
    failures = sorted(error.failures.items(), key=lambda item: item[1].timestamp)
    decided = [failure.exitcode for _, failure in failures if failure.exitcode in DECIDED]
    if decided:
        return int(decided[0])
    for rank, failure in failures:
        if failure.exitcode < 0:
            name = signal.Signals(-failure.exitcode).name
            print(f'error: process {rank} was killed by {name}: --resume goes on.', file=sys.stderr, flush=True)
            return 128 - int(failure.exitcode)
    return int(failures[0][1].exitcode)


if __name__ == '__main__':
    # What they report of a failed process, the process says itself.
    for name in ('multiprocessing.api', 'agent.server.api', 'agent.server.local_elastic_agent'):
        logging.getLogger(f'torch.distributed.elastic.{name}').setLevel(logging.CRITICAL)
    signal.signal(signal.SIGUSR1, stop)
    api.LocalElasticAgent = Agent
    try:
        main()
    except ChildFailedError as error:
        sys.exit(exit_code(error))
    except SignalException as error:
        sys.exit(CODES.get(error.sigval, 128 + int(error.sigval)))
