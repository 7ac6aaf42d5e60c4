"""mmengine's local files, written whole or not at all: importing a plugin puts it in the place of mmengine's own."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from mmengine.fileio import LocalBackend, register_backend
from mmengine.logging import MMLogger
from mmengine.registry import VISBACKENDS
from mmengine.visualization import LocalVisBackend

from coc_core.files import is_hidden, write_bytes


class WholeFileBackend(LocalBackend):  # type: ignore[misc]
    """Writes each file beside its place, flushes it to the disk and moves it there: see `coc_core.files.replacing`.

    What is hidden in a folder (`coc_core.files.is_hidden`) is no data: an editor's or an archive's folder is no class.
    """

    def put(self, obj: bytes | memoryview, filepath: str | Path) -> None:
        """Write bytes to a file.

        Raises:
            UserError: The file cannot be written; what stood there before still does.
        """
        write_bytes(Path(filepath), obj)

    def put_text(self, obj: str, filepath: str | Path, encoding: str = 'utf-8') -> None:
        """Write text to a file.

        Raises:
            UserError: The file cannot be written; what stood there before still does.
        """
        write_bytes(Path(filepath), obj.encode(encoding))

    def list_dir_or_file(self, *args: Any, **kwargs: Any) -> Iterator[str]:
        """List a folder without what is hidden; mmengine passes over hidden files, but not over hidden folders."""
        return (path for path in super().list_dir_or_file(*args, **kwargs) if not is_hidden(path))


@VISBACKENDS.register_module(name=['WholeLocalVisBackend', 'LocalVisBackend'], force=True)
class WholeLocalVisBackend(LocalVisBackend):  # type: ignore[misc]
    """mmengine's files of metrics and pictures; one that cannot be written is a warning and ends no training."""

    _failed = False

    def _dump(self, value_dict: dict[str, Any], file_path: str, file_format: str) -> None:
        try:
            super()._dump(value_dict, file_path, file_format)
        except OSError as error:
            if not self._failed:
                self._failed = True
                MMLogger.get_current_instance().warning(
                    f'{file_path} cannot be written ({error.strerror}): metrics are missing there from now on.'
                )


def keep_logging(logger: logging.Logger) -> None:
    """Let a log file that cannot be written be silent: the console still has each line.

    That a data worker died, torch raises in whatever line runs; where that is a line that logs, it goes on from there.
    """
    for handler in logger.handlers:
        silent = isinstance(handler, logging.FileHandler)
        told = (lambda record: None) if silent else handler.handleError
        handler.handleError = partial(_handle_error, told)  # type: ignore[method-assign]


def _handle_error(told: Callable[[logging.LogRecord], None], record: logging.LogRecord) -> None:
    error = sys.exc_info()[1]
    if isinstance(error, RuntimeError) and 'DataLoader worker' in str(error):
        raise error
    told(record)


register_backend('local', WholeFileBackend, force=True, prefixes='')
