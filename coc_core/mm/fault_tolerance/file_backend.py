"""mmengine's local files, written whole or not at all: importing a plugin puts it in the place of mmengine's own."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from mmengine.fileio import LocalBackend, register_backend
from mmengine.logging import MMLogger
from mmengine.registry import VISBACKENDS
from mmengine.visualization import LocalVisBackend

from coc_core.files import write_bytes


class WholeFileBackend(LocalBackend):  # type: ignore[misc]
    """Writes each file beside its place, flushes it to the disk and moves it there: see `coc_core.files.replacing`."""

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
    """Let a log file that cannot be written be silent: the console still has each line."""
    for handler in logger.handlers:
        if isinstance(handler, logging.FileHandler):
            handler.handleError = lambda record: None  # type: ignore[method-assign]


register_backend('local', WholeFileBackend, force=True, prefixes='')
