"""Makes mmengine, of both OpenMMLab families, read checkpoints by `coc_core.checkpoints.read` alone."""

from __future__ import annotations

import ast
import logging
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch
from mmengine.dist import barrier, is_main_process
from mmengine.logging import history_buffer, print_log  # noqa: F401  the buffer is known to `allowed_types` from now on
from mmengine.runner import CheckpointLoader

from coc_core.checkpoints.conversion import in_library_names
from coc_core.checkpoints.reading import allowed_types, read

_CONFIG_SYNTAX = (
    ast.Module, ast.Assign, ast.Name, ast.Store, ast.Load, ast.Constant, ast.List, ast.Tuple, ast.Dict, ast.Set,
    ast.Call, ast.keyword, ast.UnaryOp, ast.USub,
)  # fmt: skip
_IMPORTABLE = ('coc_core', 'mmpretrain', 'mmdet', 'mmseg', 'mmcv', 'mmengine', 'pointcloud')


def is_plain_config(text: str) -> bool:
    """Whether a config's text, which mmengine runs as a program, only names values, as what mmengine saves does.

    It may assign literals and ``dict(...)``, inherit from nothing, and import this project's and the mm* packages. A
    ``type`` must be a registered name or lie in one of these packages: mmengine calls any other function it names.
    """
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    for node in ast.walk(tree):
        if not isinstance(node, _CONFIG_SYNTAX):
            return False
        if isinstance(node, ast.Call) and (node.args or not isinstance(node.func, ast.Name) or node.func.id != 'dict'):
            return False
        if not all(_is_plain_entry(key, value) for key, value in _entries(node)):
            return False
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id != 'dict':
            return False
    return '{{' not in text


def _entries(node: ast.AST) -> list[tuple[object, ast.expr]]:
    """The names that a part of a config gives values, with these."""
    if isinstance(node, ast.Assign):
        names = (target.id if isinstance(target, ast.Name) else None for target in node.targets)
        # Nothing else may take the name of the one function that is called.
        return [(None if name == 'dict' else name, node.value) for name in names]
    if isinstance(node, ast.keyword):
        return [(node.arg, node.value)] if node.arg else []
    if isinstance(node, ast.Dict):
        return [(getattr(key, 'value', None), value) for key, value in zip(node.keys, node.values, strict=True)]
    return []


def _is_plain_entry(key: object, value: ast.expr) -> bool:
    if key in (None, '_base_'):
        return False
    if key not in ('type', 'custom_imports', 'default_scope', '_scope_'):
        return True
    words = [node.value for node in ast.walk(value) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    inside = all(word.split('.')[0].removesuffix('_plugin') in _IMPORTABLE for word in words)
    return inside or (key == 'type' and all(word.isidentifier() and find_spec(word) is None for word in words))


def _without_programs(checkpoint: Any, name: str) -> Any:
    """A checkpoint without the texts that mmengine would run: one when it resumes, one in its inferencers."""
    meta = checkpoint.get('meta') if isinstance(checkpoint, dict) else None
    if isinstance(meta, dict):
        for key in ('config', 'cfg'):
            if key in meta and not (isinstance(meta[key], str) and is_plain_config(meta[key])):
                del meta[key]
                print_log(
                    f'{name} holds a config that would run other code: it is not read.', 'current', logging.WARNING
                )
    return checkpoint


def install_safe_loader() -> None:
    """Make mmengine read every checkpoint weights-only, from a disk or from the web, and under the libraries' names.

    OneDL's own loader falls back to plain pickle where the weights-only reader refuses a file, and both families read
    what they download by plain pickle. Upstream's resume needs the allow-list in torch itself.
    """
    torch.serialization.add_safe_globals(allowed_types())
    # mmengine's log line prints the loader's name from its 11th letter on.
    CheckpointLoader.register_scheme('', loader=load_from_local_weights_only, force=True)
    CheckpointLoader.register_scheme(('http://', 'https://'), loader=load_from_http_weights_only, force=True)


def load_from_local_weights_only(filename: str, map_location: Any = None) -> Any:
    """The loader of files that `install_safe_loader` gives to mmengine."""
    return in_library_names(_without_programs(read(filename, map_location), filename), filename)


def load_from_http_weights_only(filename: str, map_location: Any = None, model_dir: str | None = None) -> Any:
    """The loader of addresses: downloads once, into torch's cache, and reads weights-only."""
    folder = Path(model_dir or Path(torch.hub.get_dir()) / 'checkpoints')
    file = folder / Path(urlparse(filename).path).name
    if is_main_process() and not file.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(filename, str(file))
    barrier()
    return in_library_names(_without_programs(read(file, map_location), filename), filename)
