"""Tells in one sentence which OpenMMLab package is missing or unusable, and what mends it."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from importlib import import_module, metadata
from importlib.util import find_spec
from io import StringIO

from coc_core.errors import UserError

# import name: (distribution and version of the OneDL family, of the upstream family)
_DISTRIBUTIONS = {
    'mmengine': ('onedl-mmengine==0.10.12', 'mmengine==0.10.7'),
    'mmcv': ('onedl-mmcv==2.3.6', 'mmcv==2.1.0'),
    'mmpretrain': ('onedl-mmpretrain==1.3.6', 'mmpretrain==1.2.0'),
    'mmdet': ('onedl-mmdetection==3.5.1', 'mmdet==3.3.0'),
    'mmseg': ('onedl-mmsegmentation==1.4.2', 'mmsegmentation==1.2.2'),
}
_NEED_OPERATORS = frozenset({'mmcv', 'mmdet', 'mmseg'})
_NEED_MMCV = frozenset({'mmpretrain', *_NEED_OPERATORS})


class MissingPackage(UserError, ImportError):
    """A package is missing or unusable; the sentence names the command that mends it."""


def require(*packages: str) -> None:
    """Check a tool's packages before it imports them; end the program with one sentence where they are not usable."""
    try:
        check_openmmlab(*packages)
    except MissingPackage as error:
        print(f'error: {error}', file=sys.stderr)
        sys.exit(2)


def check_openmmlab(*packages: str) -> None:
    """Check that packages are there and usable, with what they themselves build on.

    Args:
        packages: Import names; of OpenMMLab's, mmcv, mmdet and mmseg also ask for mmcv's compiled operators.

    Raises:
        MissingPackage: A package is missing or unusable.
    """
    wanted = dict.fromkeys(packages)
    if _DISTRIBUTIONS.keys() & wanted:
        check_one_family()
        wanted = dict.fromkeys(['mmengine', *(['mmcv'] if _NEED_MMCV.intersection(packages) else []), *packages])
    for name in wanted:
        if find_spec(name) is None:
            raise MissingPackage(f'{name} is not installed: run `make setup` or `{install_command(name)}`.')
    if _NEED_OPERATORS.intersection(packages):
        check_operators()


@contextmanager
def quiet_imports() -> Iterator[None]:
    """Pass over what the packages say of optional parts, which reads like a failure; the parts are told where used."""
    said = StringIO()
    try:
        with redirect_stdout(said), warnings.catch_warnings():
            warnings.filterwarnings('ignore', message='faster_coco_eval is not installed')
            yield
    finally:
        lines = said.getvalue().splitlines(keepends=True)
        sys.stdout.writelines(line for line in lines if not line.startswith('Could not import OneDL'))


def _installed(requirement: str) -> bool:
    try:
        summary = metadata.metadata(requirement.split('==')[0])['Summary'] or ''
    except metadata.PackageNotFoundError:
        return False
    # `make setup` lays an alias of onedl-mmsegmentation, without which `mmseg::` bases do not resolve.
    return not summary.startswith('Alias of onedl-')


def installed_distribution(package: str) -> str | None:
    """Return name and version of the distribution that an OpenMMLab package comes from, None where it is missing."""
    names = [requirement.split('==')[0] for requirement in _DISTRIBUTIONS[package]]
    return next((f'{name} {metadata.version(name)}' for name in names if _installed(name)), None)


def check_one_family() -> None:
    """Check that packages of one family alone are installed.

    Raises:
        MissingPackage: Packages of both are.
    """
    onedl = [pair[0].split('==')[0] for pair in _DISTRIBUTIONS.values() if _installed(pair[0])]
    upstream = [pair[1].split('==')[0] for pair in _DISTRIBUTIONS.values() if _installed(pair[1])]
    upstream += ['mmcv-lite'] if _installed('mmcv-lite') else []
    if not onedl or not upstream or (upstream == ['mmcv-lite'] and 'onedl-mmcv' not in onedl):
        return
    owned = [name for name, pair in _DISTRIBUTIONS.items() if pair[0].split('==')[0] in onedl]
    repair = ' '.join(_DISTRIBUTIONS[name][0] for name in owned)
    raise MissingPackage(
        f'Both OpenMMLab families are installed ({", ".join(onedl)} beside {", ".join(upstream)}) and overwrite each '
        f"other's files: run `pip uninstall -y {' '.join(upstream + onedl)}` and then "
        f'`pip install --no-deps --no-build-isolation {repair}`.'
    )


def check_operators() -> None:
    """Check that mmcv has its compiled operators, and that they fit the installed torch.

    Raises:
        MissingPackage: They are missing or unusable.
    """
    try:
        import_module('mmcv._ext')
    except ModuleNotFoundError as error:
        # A module missing underneath mmcv is another defect than missing operators and names itself.
        if error.name != 'mmcv._ext':
            raise
        raise MissingPackage(
            'mmcv is installed without its compiled operators, which detection and segmentation need: '
            f'run `make setup` or {_rebuild_commands()}.'
        ) from None
    except ImportError as error:
        raise MissingPackage(
            f"mmcv's compiled operators do not fit the installed torch ({error}): "
            f'run `make setup` or {_rebuild_commands()}.'
        ) from error


def install_command(name: str) -> str:
    """Return the command that installs a package, an OpenMMLab one in the family that is there."""
    if name not in _DISTRIBUTIONS:
        return f'pip install {name}'
    requirement = _DISTRIBUTIONS[name][_family()]
    # pip's isolated build finds no torch and then makes an mmcv without operators, silently.
    return f'pip install --no-deps --no-build-isolation {requirement}'


def _rebuild_commands() -> str:
    present = [name for name in ('mmcv-lite', 'mmcv', 'onedl-mmcv') if _installed(name)]
    removal = f'`pip uninstall -y {" ".join(present)}` and then ' if present else ''
    return f'{removal}`{install_command("mmcv")}`'


def _family() -> int:
    return 1 if _installed(_DISTRIBUTIONS['mmengine'][1]) else 0
