"""How a tool runs: its exit code, and what the user reads where it fails."""

from __future__ import annotations

import argparse
import gc
import os
import sys
import time
import traceback
from collections.abc import Callable

import torch

from coc_core.errors import UserError
from coc_core.mm.mistakes import told_mistake


def run_tool(main: Callable[[argparse.Namespace], None], args: argparse.Namespace) -> int:
    """Run a tool; tell a user's mistake in one sentence on stderr. Any other error passes with its stack trace.

    Returns:
        The exit code: 0, or 2 after a mistake.
    """
    os.environ.setdefault('LOCAL_RANK', str(getattr(args, 'local_rank', 0)))
    try:
        main(args)
    except Exception as error:
        sentence = _sentence(error)
        if sentence is None:
            raise
        if args.debug:
            traceback.print_exc()
        _tell(f'error: {sentence}')
        return 2
    else:
        _leave_process_group()
    return 0


def _sentence(error: Exception) -> str | None:
    """Return what the error says to the user, in one line; None where it is no mistake of theirs."""
    mistake = error if isinstance(error, UserError) else told_mistake(error) if isinstance(error, ImportError) else None
    if mistake is None:
        return None
    # The error of a worker process holds its stack trace before the sentence.
    return ' '.join(str(mistake).rpartition(f'{UserError.__name__}: ')[2].split())


def _leave_process_group() -> None:
    if not torch.distributed.is_available() or not torch.distributed.is_initialized():
        return
    # Gloo's threads abort a process whose peer is gone, or that ends while a wrapped model still holds the group.
    torch.distributed.barrier()
    gc.collect()
    torch.distributed.destroy_process_group()


def _tell(sentence: str) -> None:
    """Print a sentence, once on each machine: the failure of its first process ends the others while they wait."""
    if int(os.environ.get('LOCAL_RANK', '0')) > 0:
        time.sleep(10)
    print(sentence, file=sys.stderr, flush=True)
