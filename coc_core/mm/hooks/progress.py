"""A progress bar on the terminal; where there is none, mmengine's log lines stay as they are."""

from __future__ import annotations

import atexit
import logging
import os
import stat
import sys
from typing import Any, TextIO

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from rich.console import Console
from rich.file_proxy import FileProxy
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


@HOOKS.register_module()
class ProgressBarHook(Hook):
    """Shows training, validation and test on a terminal, with the time left.

    Only the main process shows a bar, and only on a terminal. Log lines go through the bar's console while it is
    there, so that neither tears the other.

    Args:
        console: Where to draw; by default found by `terminal_console` when a loop starts.
    """

    # After LoggerHook, so that the bar's last state stands below the last log line.
    priority = 'LOWEST'

    def __init__(self, console: Console | None = None) -> None:
        self._console = console
        self._progress: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._streams: list[tuple[logging.StreamHandler[Any], Any]] = []

    def before_train(self, runner: Runner) -> None:
        self._add(runner, 'train', runner.max_iters, runner.iter)

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        # A loop over epochs knows how many; a loop over iterations counts them in the bar already.
        where = f'train epoch {runner.epoch + 1}/{runner.max_epochs}' if _by_epoch(runner) else 'train'
        self._update('train', completed=runner.iter + 1, description=where)

    def after_train(self, runner: Runner) -> None:
        self.close()

    def before_val_epoch(self, runner: Runner) -> None:
        self._add(runner, 'val', len(runner.val_dataloader))

    def after_val_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        self._update('val', completed=batch_idx + 1)

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        self._remove('val')

    def before_test_epoch(self, runner: Runner) -> None:
        self._add(runner, 'test', len(runner.test_dataloader))

    def after_test_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        self._update('test', completed=batch_idx + 1)

    def after_test_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        self._remove('test')

    def after_run(self, runner: Runner) -> None:
        self.close()

    def close(self) -> None:
        """Take the bar away and gives the log its stream back."""
        for handler, stream in self._streams:
            handler.setStream(stream)
        self._streams.clear()
        self._tasks.clear()
        if self._progress is not None:
            self._progress.stop()
            self._progress = None
            atexit.unregister(self.close)

    def _add(self, runner: Runner, name: str, total: int, completed: int = 0) -> None:
        if self._progress is None and not self._open(runner):
            return
        assert self._progress is not None
        self._tasks[name] = self._progress.add_task(name, total=total, completed=completed)

    def _open(self, runner: Runner) -> bool:
        console = self._console or terminal_console()
        if console is None or not is_main_process():
            return False
        self._progress = progress_bar(console)
        self._progress.start()
        # An exception in a loop leaves no hook to be called, and the terminal without its cursor.
        atexit.register(self.close)
        for handler in runner.logger.handlers:
            if isinstance(handler, logging.StreamHandler) and _is_terminal(handler.stream):
                # The logger keeps the stream of its birth, so replacing sys.stdout does not reach it.
                self._streams.append((handler, handler.stream))
                handler.setStream(FileProxy(console, handler.stream))
        return True

    def _update(self, name: str, **fields: Any) -> None:
        if self._progress is not None and name in self._tasks:
            self._progress.update(self._tasks[name], **fields)

    def _remove(self, name: str) -> None:
        if self._progress is None or name not in self._tasks:
            return
        self._progress.remove_task(self._tasks.pop(name))
        if not self._tasks:
            self.close()


def progress_bar(console: Console, *, redirect_stderr: bool = True) -> Progress:
    """Return a bar that shows what is done, of how much, and the time left.

    Args:
        console: Where to draw.
        redirect_stderr: Whether what is written on stderr goes above the bar.
    """
    return Progress(
        TextColumn('{task.description}'),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn('left'),
        TimeRemainingColumn(elapsed_when_finished=False),
        console=console,
        redirect_stderr=redirect_stderr,
    )


def terminal_console() -> Console | None:
    """Return the console that a bar may be drawn on, or None where there is no terminal to draw on."""
    if _is_terminal(sys.stdout):
        return Console(file=sys.stdout)
    # The log in a pipe most likely comes back to this terminal (`| tee`), into the middle of the bar.
    if _is_terminal(sys.stderr) and not _is_pipe(sys.stdout):
        return Console(file=sys.stderr)
    return None


def _by_epoch(runner: Runner) -> bool:
    return bool(runner.max_epochs) and runner.max_epochs > 1 and hasattr(runner.train_loop, 'run_epoch')


def _is_terminal(stream: Any) -> bool:
    return bool(getattr(stream, 'isatty', lambda: False)()) and not isinstance(stream, FileProxy)


def _is_pipe(stream: TextIO) -> bool:
    try:
        return stat.S_ISFIFO(os.fstat(stream.fileno()).st_mode)
    except (OSError, ValueError):
        return False
