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


def run_tool(main: Callable[[argparse.Namespace], None], args: argparse.Namespace) -> int:
    """Run a tool; tell a user's mistake in one sentence on stderr. Any other error passes with its stack trace.

    Returns:
        The exit code: 0, or 2 after a mistake.
    """
    os.environ.setdefault('LOCAL_RANK', str(getattr(args, 'local_rank', 0)))
    try:
        main(args)
    except UserError as error:
        if args.debug:
            traceback.print_exc()
        # The error of a worker process holds its stack trace before the sentence.
        sentence = str(error).rpartition(f'{UserError.__name__}: ')[2]
        _tell(f'error: {" ".join(sentence.split())}')
        return 2
    else:
        _leave_process_group()
    return 0


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
