"""Python and packages: whether they are there, import, are new enough and go together."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module, metadata
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from coc_core.files import project_folder
from coc_core.mm import requirements
from coc_core.mm.doctor.findings import NOTE, OK, WRONG, Finding, one_line

if TYPE_CHECKING:
    from packaging.requirements import Requirement

PROJECT = 'context-cluster'
OPENMMLAB = ('mmengine', 'mmcv', 'mmpretrain', 'mmdet', 'mmseg')


def python() -> Iterator[Finding]:
    """Look at Python's version."""
    version, wanted = platform.python_version(), _project()['requires-python']
    facts = dict(version=version, wanted=wanted, system=platform.system(), virtual=sys.prefix != sys.base_prefix)
    # Without the library that compares versions: where nothing is installed, this line is still told.
    bounds = [(sign, (int(major), int(minor))) for sign, major, minor in re.findall(r'(>=|<)(\d+)\.(\d+)', wanted)]
    if all((sys.version_info >= bound) == (sign == '>=') for sign, bound in bounds):
        yield Finding('Python', f'{version} on {platform.system()}', OK, facts)
    else:
        says = f'{version} is not among {wanted}: `make setup PYTHON=python3.11`'
        yield Finding('Python', says, WRONG, facts)


def needed() -> Iterator[Finding]:
    """Look at what the backbone needs."""
    for line in _project()['dependencies']:
        yield _needed(line)


def _needed(line: str) -> Finding:
    name = re.split(r'\W', line)[0]
    version = installed(name)
    if version is None:
        return Finding(name, f"is not installed: `make setup` or `pip install '{line}'`", WRONG)
    facts: dict[str, Any] = dict(version=version, wanted=line)
    if version not in _requirement(line).specifier:
        return Finding(name, f"{version} is too old: `make setup` or `pip install '{line}'`", WRONG, facts)
    try:
        module = import_module(name)
    except Exception as error:
        says = f'{version} does not import ({one_line(error)}): `make setup` or `pip install --force-reinstall {name}`'
        return Finding(name, says, WRONG, facts | dict(error=one_line(error)))
    if name == 'torch':
        facts |= dict(imported=module.__version__, cuda=module.version.cuda, hip=module.version.hip)
        build = f'CUDA {facts["cuda"]}' if facts['cuda'] else f'ROCm {facts["hip"]}' if facts['hip'] else 'CPU build'
        return Finding(name, f'{module.__version__}, {build}', OK, facts)
    return Finding(name, version, OK, facts)


def torchvision() -> Iterator[Finding]:
    """Look at torchvision, each version of which is made for one of torch: its own metadata say which."""
    version, torch = installed('torchvision'), installed('torch')
    if version is None:
        yield Finding('torchvision', 'is not installed: `make setup` or `pip install torchvision`', WRONG)
        return
    lines = map(_requirement, metadata.requires('torchvision') or [])
    wanted = next((each.specifier for each in lines if each.name == 'torch' and each.marker is None), '')
    facts: dict[str, Any] = dict(version=version, torch=torch, wanted=f'torch{wanted}')
    pair = f'`make setup` or `pip install torch=={(torch or "").split("+")[0]} torchvision`'
    if torch is not None and torch not in wanted:
        yield Finding('torchvision', f'{version} is made for torch{wanted}, not {torch}: {pair}', WRONG, facts)
        return
    try:
        works = _torchvision_operators()
    except Exception as error:
        says = f'{version} does not import beside torch {torch} ({one_line(error)}): {pair}, both from one index'
        yield Finding('torchvision', says, WRONG, facts | dict(error=one_line(error)))
        return
    facts['operators'] = works
    if works:
        yield Finding('torchvision', version, OK, facts)
    else:
        says = f'{version} imports, without its compiled operators, which nothing here calls: a build for another torch'
        yield Finding('torchvision', says, NOTE, facts)


def _torchvision_operators() -> bool:
    import torch
    from torchvision import extension, ops

    if not extension._has_ops():
        return False
    boxes = torch.tensor([[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 2.0, 1.9], [5.0, 5.0, 6.0, 6.0]])
    return bool(ops.nms(boxes, torch.tensor([0.9, 0.8, 0.7]), 0.5).tolist() == [0, 2])


def extra() -> Iterator[Finding]:
    """Look at Triton, which may be missing."""
    version = installed('triton')
    if version is None:
        yield Finding('triton', 'is not installed; kernels for a GPU need it: `pip install triton`', NOTE)
    else:
        import_module('triton')
        yield Finding('triton', version, OK, dict(version=version))


def openmmlab() -> Iterator[Finding]:
    """Look at the mm* packages: of one family, each importable beside the others."""
    facts = {name: requirements.installed_distribution(name) for name in OPENMMLAB}
    try:
        requirements.check_one_family()
    except requirements.MissingPackage as error:
        yield Finding('mm* packages', str(error), WRONG, facts)
        return
    yield Finding('mm* packages', _family(facts), OK, facts)
    for name in OPENMMLAB:
        if find_spec(name) is not None:
            yield _imported(name, facts[name])
        else:
            command = requirements.install_command(name)
            yield Finding(name, f'is not installed; {_TASKS[name]} need it: `make setup` or `{command}`', NOTE)


_TASKS = {
    'mmengine': 'training and testing',
    'mmcv': 'tasks on images',
    'mmpretrain': 'classifiers',
    'mmdet': 'detectors',
    'mmseg': 'segmentors',
}


def _family(facts: dict[str, str | None]) -> str:
    present = [each for each in facts.values() if each]
    if not present:
        return 'none: the backbone works without'
    return 'the OneDL family' if any(each.startswith('onedl-') for each in present) else "upstream's family"


def _imported(name: str, distribution: str | None) -> Finding:
    try:
        import_module(name)
    except Exception as error:
        command = requirements.install_command(name)
        says = f'{distribution} does not import ({one_line(error)}): `make setup` or `{command}`'
        return Finding(name, says, WRONG, dict(error=one_line(error)))
    return Finding(name, distribution or 'found, not installed by pip', OK)


def mmcv_operators() -> Iterator[Finding]:
    """Look at mmcv's compiled operators, and for which GPUs they are."""
    if find_spec('mmcv') is None:
        return
    try:
        requirements.check_operators()
    except requirements.MissingPackage as error:
        without = find_spec('mmcv._ext') is None
        yield Finding('mmcv operators', str(error), NOTE if without else WRONG, dict(present=not without))
        return
    import torch
    from mmcv import ops

    cuda = ops.get_compiling_cuda_version()
    boxes = torch.tensor([[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 2.0, 1.9], [5.0, 5.0, 6.0, 6.0]])
    kept = ops.nms(boxes, torch.tensor([0.9, 0.8, 0.7]), 0.5)[1].tolist()
    facts = dict(present=True, cuda=cuda, compiler=ops.get_compiler_version(), nms=kept)
    if kept != [0, 2]:
        command = requirements.install_command('mmcv')
        yield Finding('mmcv operators', f'nms keeps boxes {kept}, not [0, 2]: `{command}`', WRONG, facts)
        return
    built = 'for CPUs' if cuda == 'not available' else f'for CUDA {cuda}'
    yield Finding('mmcv operators', f'{built}, by {facts["compiler"]}', OK, facts)


def project() -> Iterator[Finding]:
    """Look at the project itself: its package imports whole."""
    package: Any = import_module('coc_core')
    if not hasattr(package, 'create_model'):
        # The tool has put the package there without running it.
        package.__spec__.loader.exec_module(package)
    version, commit = installed(PROJECT), _commit()
    facts = dict(version=version, commit=commit)
    told = [version or 'not installed', *([f'commit {commit}'] if commit else [])]
    yield Finding('coc_core', ', '.join(told), OK, facts)


def _commit() -> str | None:
    """Return the commit of a checkout, with a plus where files were changed since; None of no checkout."""
    if shutil.which('git') is None or not (project_folder() / '.git').exists():
        return None
    command = ['git', 'describe', '--always', '--dirty=+', '--abbrev=12', '--exclude=*']
    done = subprocess.run(command, cwd=project_folder(), capture_output=True, text=True, timeout=30)
    return done.stdout.strip() or None


def installed(distribution: str) -> str | None:
    """Return the version of what pip has installed, or None."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _project() -> dict[str, Any]:
    """Return what this project asks for: of the checkout that runs, else of what is installed."""
    file = project_folder() / 'pyproject.toml'
    if file.is_file():
        import tomllib

        table: dict[str, Any] = tomllib.loads(file.read_text())['project']
        return table
    lines = [each for each in metadata.requires(PROJECT) or [] if ';' not in each]
    return {'requires-python': metadata.metadata(PROJECT)['Requires-Python'], 'dependencies': lines}


def _requirement(line: str) -> Requirement:
    from packaging.requirements import Requirement

    return Requirement(line)
