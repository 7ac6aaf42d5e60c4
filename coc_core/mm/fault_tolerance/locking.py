"""One training at a time in a work folder: two would remove each other's checkpoints and go on from the other's."""

from __future__ import annotations

import fcntl
from pathlib import Path
from typing import BinaryIO

from coc_core.mm.fault_tolerance.faults import Fault

_FILE = '.training'
_locks: list[BinaryIO] = []


def lock(work_dir: str) -> None:
    """Lock a work folder for this process until it ends, in whatever way; its data workers do not hold the lock.

    Raises:
        Fault: Another process holds it, on whatever machine.
    """
    folder = Path(work_dir)
    folder.mkdir(parents=True, exist_ok=True)
    # As lockf's locks are the process's own: to close the file anywhere in it would let the folder go.
    file = (folder / _FILE).open('wb')
    _locks.append(file)
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError) as error:
        raise Fault(
            f'Another process trains in {work_dir} at this moment: wait for its end or stop it, or name another folder '
            'with --work-dir.'
        ) from error
    except OSError:
        # A disk that knows no locks.
        return
