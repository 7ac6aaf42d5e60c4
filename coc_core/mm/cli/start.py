"""How a tool runs: its exit code, and what the user reads where it fails."""

from __future__ import annotations

import argparse
import atexit
import ctypes
import gc
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from typing import NoReturn

import torch

from coc_core.errors import UserError
from coc_core.mm.fault_tolerance.stopping import Interrupted

# PR_SET_PDEATHSIG of Linux's prctl.
_PARENT_DEATH_SIGNAL = 1


def run_tool(main: Callable[[argparse.Namespace], None], args: argparse.Namespace) -> int:
    """Run a tool; tell a user's mistake in one sentence on stderr. Any other error passes with its stack trace.

    Returns:
        The exit code: 0, that of a `UserError`, or what `Interrupted` says after a signal.
    """
    os.environ.setdefault('LOCAL_RANK', str(getattr(args, 'local_rank', 0)))
    if getattr(args, 'launcher', 'none') == 'pytorch' and sys.platform == 'linux':
        # A launcher that is killed leaves its processes behind: this asks for SIGTERM at its end.
        ctypes.CDLL(None).prctl(_PARENT_DEATH_SIGNAL, signal.SIGTERM)
    try:
        main(args)
    except Interrupted as stop:
        _leave_process_group()
        return int(stop.code)  # type: ignore[arg-type]
    except UserError as error:
        if args.debug:
            traceback.print_exc()
        # The error of a worker process holds its stack trace before the sentence.
        sentence = str(error).rpartition(f'{UserError.__name__}: ')[2]
        _tell(f'error: {" ".join(sentence.split())}')
        if _in_process_group():
            _end_at_once(error.exit_code)
        return error.exit_code
    else:
        _leave_process_group()
    return 0


def _in_process_group() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def _end_at_once(code: int) -> NoReturn:
    # Where a peer hangs or is gone, Gloo's threads may abort a process while Python takes it down.
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _leave_process_group() -> None:
    if not _in_process_group():
        return
    # Gloo's threads abort a process whose peer is gone, or that ends while a wrapped model still holds the group.
    torch.distributed.barrier()
    gc.collect()
    torch.distributed.destroy_process_group()


def _tell(sentence: str) -> None:
    """Print a sentence, once on each machine: the failure of its first process ends the others while they wait."""
    if int(os.environ.get('LOCAL_RANK', '0')) > 0:
        # An orderly stop would hold the first back, and the death of a data worker raises an error at the second.
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        time.sleep(10)
    print(sentence, file=sys.stderr, flush=True)
