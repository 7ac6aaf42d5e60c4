"""A tool that runs other tools: a signal that stops it stops them in order."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Mapping, Sequence

from coc_core.mm.fault_tolerance.stopping import EXIT_CODES


def run_child(command: Sequence[str], environment: Mapping[str, str] | None = None) -> int:
    """Run a command to its end, and pass on to it what shall stop this process.

    Args:
        command: The program and its arguments.
        environment: Its variables; None: those of this process.

    Returns:
        Its exit code; 128 and the signal's number where one killed it.
    """
    process = subprocess.Popen(command, env=environment)
    handlers = {
        number: signal.signal(number, lambda number, frame: process.send_signal(number)) for number in EXIT_CODES
    }
    try:
        code = process.wait()
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    return code if code >= 0 else 128 - code
