"""Reads a config with the changes of the command line."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.config.config import DELETE_KEY
from mmengine.config.utils import ConfigParsingError

from coc_core.errors import UserError, did_you_mean, during
from coc_core.mm.mistakes import raised_by_packages
from coc_core.mm.option_keys import check_option_keys, check_value_keys
from coc_core.mm.option_values import read_option
from coc_core.mm.requirements import check_openmmlab, quiet_imports
from coc_core.mm.task import task_of

_formatted: dict[str, str] = {}


class FormattedOnceConfig(Config):  # type: ignore[misc]
    """mmengine's config, whose text is formatted again only after a change: that is half a second of each save."""

    @property
    def pretty_text(self) -> str:
        """The config as Python."""
        content = repr(self._cfg_dict)
        if content not in _formatted:
            _formatted.clear()
            _formatted[content] = super().pretty_text
        return _formatted[content]


def load_config(path: str, options: Mapping[str, Any] | None = None) -> Config:
    """Read a config, merge ``--cfg-options`` into it and check that its task's packages are usable.

    Args:
        path: The config file.
        options: Values by dotted keys: an ``OptionText``, which `read_option` reads, or what shall stand there.

    Raises:
        UserError: There is no such file, it is no Python, it inherits from or imports what is not there, an option's
            key is unknown or its value does not fit, or a package of its task is missing or unusable.
    """
    file = Path(path)
    if not file.is_file():
        folder = file.parent
        names = [str(item) for item in folder.glob('*.py')] if folder.is_dir() else []
        hint = did_you_mean(str(file), names) if folder.is_dir() else f' There is no folder {folder} either.'
        raise UserError(f'The config {path} does not exist.{hint}')
    with during(f'reading the config {path}'), quiet_imports():
        try:
            cfg = Config.fromfile(path)
        except Exception as error:
            mistake = _mistake(file, error)
            if mistake is None:
                raise
            raise mistake from error
    # Reading makes mmengine's class; its attributes are the config's entries, so this one is not set like another.
    object.__setattr__(cfg, '__class__', FormattedOnceConfig)
    # Of a package's own config, which imports no plugin, this checks the package.
    task_of(cfg)
    if options:
        check_option_keys(cfg, options)
        for key, given in options.items():
            first, *rest = key.split('.')
            cfg[first] = _changed(cfg.get(first), rest, partial(_new_entry, cfg, key, given))
    return cfg


def _changed(node: Any, names: Sequence[str], change: Callable[[Any], Any]) -> Any:
    """Change the entry that the names lead to from a part of a config, and return the part.

    mmengine's `merge_from_dict` reaches no item of a tuple and of a list only dicts, and puts a dict on dicts alone.
    """
    if not names:
        return change(node)
    name, *rest = names
    if isinstance(node, (list, tuple)):
        items = list(node)
        items[int(name)] = _changed(items[int(name)], rest, change)
        return type(node)(items)
    node = ConfigDict() if node is None else node
    node[name] = _changed(node.get(name), rest, change)
    return node


def _new_entry(cfg: Config, key: str, given: Any, entry: Any) -> Any:
    value = read_option(key, given, entry)
    check_value_keys(cfg, key, value, entry)
    return _merged(value, entry)


def _merged(value: Any, entry: Any) -> Any:
    """Return a value merged with the dict that it replaces, as configs inherit, `_delete_` included."""
    if not isinstance(value, Mapping):
        return value
    inherits = isinstance(entry, Mapping) and not value.get(DELETE_KEY)
    merged = entry if inherits else ConfigDict()
    for name, item in value.items():
        if name != DELETE_KEY:
            merged[name] = _merged(item, merged.get(name))
    return merged


def _mistake(file: Path, error: Exception) -> UserError | None:
    """Return what the user got wrong in a config's text; None where the error is of code that it runs."""
    text = file.read_text(encoding='utf-8', errors='replace')
    # What is inherited from a package that is missing fails in mmengine's own ways.
    check_openmmlab(*re.findall(r'[\'"](\w+)::', text))
    if isinstance(error, ImportError):
        return _failed_import(file, error)
    what = None
    # A module of the user's with such an error is named in it by its file.
    if isinstance(error, SyntaxError) and not Path(error.filename or '').is_file():
        what = f'SyntaxError in line {error.lineno}: {error.msg}'
    elif isinstance(error, (FileNotFoundError, ConfigParsingError)) and raised_by_packages(error):
        what = f'what it inherits from is not there ({" ".join(str(error).split())})'
    return UserError(f'The config {file} is not valid: {what}.') if what else None


def _failed_import(file: Path, error: BaseException | None) -> UserError | None:
    """Return the sentence of a plugin, or that a module of ``custom_imports`` is not there.

    mmengine hides both under errors of its own. A module that is there and fails is somebody's code.
    """
    while error is not None:
        if isinstance(error, UserError):
            return error
        named = re.fullmatch(r'Failed to import (\S+)', str(error))
        if named and not _is_there(named[1]):
            what = f'its custom_imports name the module {named[1]}, which is not there'
            remedy = 'correct the name, or tell Python where it is (PYTHONPATH=. for a file in this folder)'
            return UserError(f'The config {file} is not valid: {what}: {remedy}.')
        error = error.__cause__ or error.__context__
    return None


def _is_there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False
