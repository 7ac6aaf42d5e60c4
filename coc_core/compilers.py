"""The compilers and headers that an environment has: what Triton's launcher is built with, and what mmcv needs."""

from __future__ import annotations

import os
import shutil
import sysconfig
from pathlib import Path


def c_compiler() -> str | None:
    """Return the C compiler that Triton takes: that of ``CC``, else gcc, else clang; None where there is none."""
    named = os.environ.get('CC')
    if named is not None:
        return shutil.which(named)
    return shutil.which('gcc') or shutil.which('clang')


def cpp_compiler() -> str | None:
    """Return the C++ compiler that extensions of PyTorch are built with: that of ``CXX``, else what there is."""
    return next(filter(None, map(shutil.which, (os.environ.get('CXX', 'c++'), 'g++', 'clang++'))), None)


def has_python_headers() -> bool:
    """Tell whether ``Python.h`` is where Triton looks for it."""
    scheme = sysconfig.get_default_scheme()
    # Debian's own scheme names a folder below /usr/local, where its headers are not; Triton knows that, too.
    scheme = 'posix_prefix' if scheme == 'posix_local' else scheme
    return (Path(sysconfig.get_paths(scheme=scheme)['include']) / 'Python.h').is_file()


def missing_for_triton() -> str:
    """Return in a sentence what Triton lacks to launch a kernel, with the command that mends it, or ''."""
    if c_compiler() is None:
        return 'Triton needs a C compiler, and none is found: `apt install gcc`, or set CC.'
    if not has_python_headers():
        return f'Triton needs Python.h, which is not there: `{headers_command()}`.'
    return ''


def headers_command() -> str:
    """Return the command that installs Python's headers on Debian."""
    return f'apt install python{sysconfig.get_python_version()}-dev'
