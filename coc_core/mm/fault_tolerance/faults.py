"""What failed outside the training's own code, in one sentence: a dead data worker, a silent process, full memory."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from traceback import walk_tb

import torch
from mmengine.dist import get_world_size

from coc_core.errors import UserError

_AGAIN = '--resume goes on from the last checkpoint.'
_SHARED_MEMORY = (
    'Shared memory is full, through which data workers hand over their samples: give /dev/shm more room (of a '
    f'container: docker run --shm-size=8g or --ipc=host), or set train_dataloader.num_workers=0. {_AGAIN}'
)
_MEMORY = (
    'Most often the memory of the machine is full: lower train_dataloader.num_workers or batch_size, or free memory. '
    f'{_AGAIN}'
)
_LOST_WORKER = f'A data worker ended while it handed over a batch. {_MEMORY}'
_SILENT = f'(env_cfg.dist_cfg.timeout): it hangs or its machine is gone. {_AGAIN}'
_SECONDS_UNTIL_THE_SIGNAL = 0.5
# Of these the first that is found in an error's text says what happened.
_CAUSES = (
    (r'Bus error|shared memory\(shm\)|out of shared memory|unable to \w+ .*shared memory', _SHARED_MEMORY),
    (
        r'DataLoader worker \(pid.*?\) (?P<how>is killed by signal: \w+|exited unexpectedly)',
        f'A data worker {{how}}. {_MEMORY}',
    ),
    (
        r'DataLoader timed out after (?P<how>\d+) seconds',
        'No data worker brought a batch within {how} seconds (train_dataloader.timeout): the disk or the network that '
        f'the data lies on does not answer. {_AGAIN}',
    ),
)
_CAUSES_AMONG_PROCESSES = (
    (
        r'Timed out waiting (?P<how>\d+)ms|ran for (?P<nccl>\d+) milliseconds before timing out',
        f'Another process of the training did not answer within {{seconds}} seconds {_SILENT}',
    ),
    (
        # Gloo, of the other operations of a process that has waited in vain for one.
        r'Application timeout caused pair closure',
        f'Another process of the training did not answer in time {_SILENT}',
    ),
    (
        r'Connection (?:closed|reset) by peer|Broken pipe|Connection refused|remote process exited',
        f'Another process of the training has ended or was killed. {_AGAIN}',
    ),
)  # fmt: skip


class Fault(UserError):
    """Something outside the training's code failed, told in one sentence; starting again may help."""

    exit_code = 1


@contextmanager
def explained() -> Iterator[None]:
    """Tell faults of the machine and of other processes in one sentence; any other error passes as it is.

    Raises:
        Fault: The error is such a fault.
        UserError: A GPU's memory is full, which starting again does not help.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise UserError(
            f"The GPU's memory is full ({str(error).splitlines()[0]}): lower train_dataloader.batch_size, or use "
            '--amp or model.backbone.grad_checkpointing=True.'
        ) from error
    except (RuntimeError, OSError, EOFError) as error:
        sentence = _sentence(error)
        if sentence is None:
            raise
        raise Fault(sentence) from error


def _sentence(error: Exception) -> str | None:
    try:
        if not _while_handed_over(error):
            return _explain(str(error))
        # torch raises how a worker ended in the handler of a signal, and this may come a little later.
        time.sleep(_SECONDS_UNTIL_THE_SIGNAL)
    except RuntimeError as news:
        return _explain(str(news))
    return _LOST_WORKER


def _while_handed_over(error: Exception) -> bool:
    """Tell whether a data worker was gone when this process wanted to take over a batch from it."""
    if not isinstance(error, (ConnectionError, FileNotFoundError, EOFError)):
        return False
    # torch's pickling of tensors in shared memory; an error of the worker's own is raised anew, without such frames.
    files = {Path(frame.f_code.co_filename) for frame, _ in walk_tb(error.__traceback__)}
    return any(file.parts[-3:] == ('torch', 'multiprocessing', 'reductions.py') for file in files)


def _explain(text: str) -> str | None:
    # Alone, such words are of something else that a run talks to.
    causes = _CAUSES + _CAUSES_AMONG_PROCESSES if get_world_size() > 1 else _CAUSES
    for pattern, sentence in causes:
        match = re.search(pattern, text)
        if match:
            found = match.groupdict()
            how = found.get('how') or found.get('nccl') or ''
            seconds = int(how) // 1000 if how.isdigit() else 0
            return sentence.format(how=how.replace('is killed', 'was killed'), seconds=seconds)
    return None
