"""What mmcv's operators are compiled for here: CPUs alone, or CUDA GPUs too, and what that takes."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

ASK = """
import os, torch
seen = {torch.cuda.get_device_capability(i) for i in range(torch.cuda.device_count())}
print(torch.__version__, torch.version.cuda, int(torch.cuda.is_available()), *("%d.%d" % each for each in sorted(seen)))
"""


@dataclass(frozen=True)
class Target:
    """What mmcv's set-up compiles for.

    Attributes:
        torch: The version of torch, with its build.
        cuda: The version of CUDA that torch was built with, or ``'None'``.
        gpu: Whether the CUDA operators are compiled too: where a GPU is in sight, or by FORCE_CUDA=1.
        architectures: Those of TORCH_CUDA_ARCH_LIST, else of the GPUs in sight.
    """

    torch: str
    cuda: str
    gpu: bool
    architectures: tuple[str, ...]

    @property
    def key(self) -> str:
        """The target in a word: operators of another one are not to be taken for these."""
        return '-'.join([self.torch, *(['gpu', *self.architectures] if self.gpu else [])])

    @property
    def core_seconds(self) -> int:
        """How long one core is about to compile for the target."""
        return 840 + (1080 + 540 * len(self.architectures) if self.gpu else 0)


def target(python: Path) -> Target:
    """Return what mmcv would be compiled for with the torch of an environment."""
    told = subprocess.run([python, '-c', ASK], capture_output=True, text=True, check=True).stdout.split()
    torch, cuda, available, *seen = told
    return Target(torch, cuda, available == '1' or forced(), tuple(named_architectures() or seen))


def forced() -> bool:
    """Tell whether the CUDA operators are wanted even where no GPU is in sight."""
    return os.environ.get('FORCE_CUDA') == '1'


def named_architectures() -> list[str]:
    """Return the architectures that TORCH_CUDA_ARCH_LIST names."""
    named = os.environ.get('TORCH_CUDA_ARCH_LIST', '')
    return [] if named == 'native' else re.findall(r'[^;\s]+', named)


def nvcc() -> str | None:
    """Return CUDA's compiler from where PyTorch looks for it; None where there is none."""
    home = os.environ.get('CUDA_HOME') or os.environ.get('CUDA_PATH')
    if home:
        return shutil.which('nvcc', path=f'{home}/bin')
    return shutil.which('nvcc') or shutil.which('nvcc', path='/usr/local/cuda/bin')


def serve(operators: str, python: Path) -> bool:
    """Tell whether operators with a target's key will do in an environment.

    Those for CPUs alone do not where those for GPUs can be compiled: they were made on another machine.
    """
    if not forced() and nvcc() is None:
        return True
    wanted = target(python)
    if not wanted.gpu or (not forced() and lacks(wanted)):
        return True
    return operators == wanted.key if named_architectures() else '-gpu' in operators


def lacks(wanted: Target) -> str:
    """Return in a sentence what is missing to compile for a target, with the remedy, or ''."""
    if not wanted.gpu or (wanted.cuda == 'None' and not forced()):
        return ''
    if wanted.cuda == 'None':
        return f'FORCE_CUDA=1 needs a torch that was built with CUDA, and this is {wanted.torch}: leave TORCH=cpu out.'
    if not wanted.architectures:
        return (
            'FORCE_CUDA=1 needs to be told what to compile for where no GPU is in sight: set TORCH_CUDA_ARCH_LIST, '
            '9.0 for an H100.'
        )
    compiler = nvcc()
    version = _version(compiler) if compiler else None
    if version and version.partition('.')[0] == wanted.cuda.partition('.')[0]:
        return ''
    found = f'{compiler} is of CUDA {version}' if compiler else 'CUDA_HOME, PATH and /usr/local/cuda have none'
    without = 'leave FORCE_CUDA out' if forced() else 'run CUDA_VISIBLE_DEVICES= make setup'
    return (
        f"mmcv's operators for GPUs need nvcc of CUDA {wanted.cuda}, and {found}: install that toolkit and set "
        f'CUDA_HOME, or {without} for operators that run on CPUs alone.'
    )


def _version(compiler: str) -> str | None:
    told = subprocess.run([compiler, '--version'], capture_output=True, text=True).stdout
    match = re.search(r'release ([\d.]+)', told)
    return match and match[1]


def header_path(site_packages: Path) -> str:
    """Return a CPATH with the headers of torch's own CUDA libraries, which a toolkit may leave out, at its end."""
    own = (str(folder) for folder in sorted(site_packages.glob('nvidia/cu*/include')))
    return os.pathsep.join(filter(None, [os.environ.get('CPATH'), *own]))
