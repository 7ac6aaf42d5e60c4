"""Lets torchvision import where its compiled operators are missing.

A CPU build of torch beside a CUDA build of torchvision leaves torchvision's C++ library unloaded, and
``import torchvision`` (so timm and mmpretrain) dies with "operator torchvision::nms does not exist". Declaring the two
schemas that it looks up is enough; nothing in this project calls these operators.

Where an environment has this defect, ``make setup`` copies this file into it, beside a .pth file that calls
`install_import_hook`.
"""

from __future__ import annotations

import importlib.abc
import importlib.util
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

_SCHEMA = '(Tensor dets, Tensor scores, float iou_threshold) -> Tensor'
_OPERATORS = ('nms', 'qnms')


def declare_missing_operators() -> None:
    """Declare ``torchvision::nms`` and ``torchvision::qnms`` unless torchvision's compiled library provides them.

    Does nothing where torchvision is not installed or is imported already.
    """
    if 'torchvision' in sys.modules:
        return
    spec = importlib.util.find_spec('torchvision')
    if spec is None or spec.origin is None or _library_loads(Path(spec.origin).parent):
        return
    import torch

    for name in _OPERATORS:
        if not hasattr(torch.ops.torchvision, name):
            torch.library.define(f'torchvision::{name}', _SCHEMA)


def _library_loads(package: Path) -> bool:
    """Load torchvision's operators as torchvision itself will, and tell whether that works."""
    import torch

    for library in sorted(package.glob('_C*.so')) + sorted(package.glob('_C*.pyd')):
        try:
            torch.ops.load_library(str(library))  # type: ignore[no-untyped-call]
        except OSError:
            return False
        return True
    return False


class _BeforeTorchvision(importlib.abc.MetaPathFinder):
    """Acts once, just before torchvision is first looked up; finds nothing itself."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname == 'torchvision':
            sys.meta_path.remove(self)
            declare_missing_operators()
        return None


def install_import_hook() -> None:
    """Declare the operators when torchvision is first imported, without importing torch before."""
    sys.meta_path.insert(0, _BeforeTorchvision())
