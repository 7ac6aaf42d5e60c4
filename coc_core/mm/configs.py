"""Reads a config with the changes of the command line."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mmengine.config import Config

from coc_core.errors import UserError, did_you_mean, during
from coc_core.mm.mistakes import told_mistake
from coc_core.mm.option_keys import check_option_keys
from coc_core.mm.requirements import check_openmmlab
from coc_core.mm.task import task_of


def load_config(path: str, options: Mapping[str, Any] | None = None) -> Config:
    """Read a config, merge ``--cfg-options`` into it and check that its task's packages are usable.

    Raises:
        UserError: There is no such file, it is no Python, it inherits from or imports what is not there, an option's
            key is unknown, or a package of its task is missing or unusable.
    """
    file = Path(path)
    if not file.is_file():
        folder = file.parent
        names = [str(item) for item in folder.glob('*.py')] if folder.is_dir() else []
        hint = did_you_mean(str(file), names) if folder.is_dir() else f' There is no folder {folder} either.'
        raise UserError(f'The config {path} does not exist.{hint}')
    with during(f'reading the config {path}'):
        try:
            cfg = Config.fromfile(path)
        except Exception as error:
            mistake = _mistake(file, error)
            if mistake is None:
                raise
            raise mistake from error
    # Of a package's own config, which imports no plugin, this checks the package.
    task_of(cfg)
    if options:
        check_option_keys(cfg, options)
        cfg.merge_from_dict(dict(options))
    return cfg


def _mistake(file: Path, error: Exception) -> UserError | None:
    """Return what the user got wrong in a config's text; None where the error is of code that it runs."""
    text = file.read_text(encoding='utf-8', errors='replace')
    # What is inherited from a package that is missing fails in mmengine's own ways.
    check_openmmlab(*re.findall(r'[\'"](\w+)::', text))
    if (told := told_mistake(error)) is not None:
        return told
    what = None
    if isinstance(error, SyntaxError):
        what = f'SyntaxError in line {error.lineno}: {error.msg}'
    elif isinstance(error, FileNotFoundError) or type(error).__name__ == 'ConfigParsingError':
        what = f'what it inherits from is not there ({" ".join(str(error).split())})'
    elif (module := _absent_import(error)) is not None:
        what = f'its custom_imports name the module {module}, which is not there'
    return what and UserError(f'The config {file} is not valid: {what}.')  # type: ignore[return-value]


def _absent_import(error: BaseException | None) -> str | None:
    """Return the module of ``custom_imports`` that is not there; one that is there and fails is somebody's code."""
    while error is not None:
        named = re.fullmatch(r'Failed to import (\S+)', str(error))
        if named and not _is_there(named[1]):
            return named[1]
        error = error.__cause__ or error.__context__
    return None


def _is_there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False
