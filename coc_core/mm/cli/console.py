"""What a tool's console says: what trains on what, metrics and files. The log file has every line."""

from __future__ import annotations

import logging
import os
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.runner import Runner

# The environment, the config, the hooks and each parameter's options are hundreds of lines; the rest is mmengine's talk
# to its own developers.
_FOR_THE_LOG = re.compile(
    r'\s*-+\nSystem environment|Config:\n|Hooks will be executed|paramwise_options -- |Exp name: '
    r'|Distributed training is not used, all SyncBatchNorm'
    r'|"FileClient" will be deprecated|"HardDiskBackend" is the alias'
    r'|The prefix is not set in metric class|The length of `dataset`'
    r'|Line NMS is not compiled'
)
# Warnings while a model and hooks are built: that mmcv has no operators is said where one is needed, that pictures are
# not drawn and that ignored pixels count in the mean of a loss is as the packages have it by default.
_HARMLESS = (
    'Fail to import ``MultiScaleDeformableAttention``',
    'The draw is False, it means that the hook for visualization',
    'Default ``avg_non_ignore`` is False',
)


class ConsoleFilter(logging.Filter):
    """Keeps from the console what belongs to the log file."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether a message is shown."""
        return not _FOR_THE_LOG.match(record.getMessage())


class QuietRunner(Runner):  # type: ignore[misc]
    """mmengine's runner with a console that can be read: see `ConsoleFilter`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        with warnings.catch_warnings():
            for beginning in _HARMLESS:
                warnings.filterwarnings('ignore', message=beginning)
            super().__init__(*args, **kwargs)

    def build_logger(self, *args: object, **kwargs: object) -> logging.Logger:
        """Build mmengine's logger."""
        logger: logging.Logger = super().build_logger(*args, **kwargs)
        for handler in logger.handlers:
            if not isinstance(handler, logging.FileHandler):
                handler.addFilter(ConsoleFilter())
        return logger

    def _log_env(self, env_cfg: dict[str, Any]) -> None:
        # It asks Python's own C compiler for its version in a shell, which complains where there is none.
        with _no_stderr():
            super()._log_env(env_cfg)


@contextmanager
def _no_stderr() -> Iterator[None]:
    sys.stderr.flush()
    shown = os.dup(2)
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 2)
    try:
        yield
    finally:
        os.dup2(shown, 2)
        os.close(shown)
        os.close(nothing)


def announce(runner: Runner, name: str) -> None:
    """Log what trains on what, and where the log file is.

    Args:
        runner: The runner with its training loop built.
        name: What messages call the config.
    """
    parameters = sum(p.numel() for p in runner.model.parameters()) / 1e6
    loader = runner.train_dataloader
    on = torch.cuda.get_device_name() if torch.cuda.is_available() else f'CPU, {torch.get_num_threads()} threads'
    files = [handler.baseFilename for handler in runner.logger.handlers if isinstance(handler, logging.FileHandler)]
    runner.logger.info(
        f'{name}: {parameters:.1f} M parameters, {len(loader.dataset)} samples in {len(loader)} batches, '
        f'{runner.world_size} x {on}. {f"The config and all else: {files[0]}" if files else ""}'
    )
