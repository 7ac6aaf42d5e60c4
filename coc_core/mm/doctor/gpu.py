"""GPUs, and whether torch, Triton and mmcv were built for them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from coc_core import compilers
from coc_core.mm.doctor.findings import NOTE, OK, WRONG, Finding, one_line

GIB = 2**30
REINSTALL = '`make setup` without TORCH=cpu, or torch and torchvision from https://pytorch.org/get-started'


def driver() -> list[str]:
    """Return what NVIDIA's own tool says of each GPU, "name, driver's version", whether torch sees it or not."""
    if shutil.which('nvidia-smi') is None:
        return []
    command = ['nvidia-smi', '--query-gpu=name,driver_version', '--format=csv,noheader']
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    return [line.strip() for line in done.stdout.splitlines() if line.strip()] if done.returncode == 0 else []


def gpus() -> Iterator[Finding]:
    """Look at the GPUs, at what torch sees of them, and at what belongs to them."""
    import torch

    told = driver()
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            yield _gpu(index, torch.cuda.get_arch_list())
        yield _driver(told)
        yield from _belonging()
    elif told:
        yield _unseen(told)
    else:
        yield Finding('GPU', 'none', OK, dict(count=0))


def _gpu(index: int, architectures: Sequence[str]) -> Finding:
    import torch

    properties = torch.cuda.get_device_properties(index)
    capability = properties.major, properties.minor
    facts: dict[str, Any] = dict(
        name=properties.name,
        capability=list(capability),
        memory_bytes=properties.total_memory,
        multiprocessors=properties.multi_processor_count,
        shared_memory_per_block_optin=getattr(properties, 'shared_memory_per_block_optin', None),
    )
    facts['torch_is_built_for'] = list(architectures)
    name, number = f'GPU {index}', '.'.join(map(str, capability))
    if torch.version.hip is None and not covers(architectures, capability):
        says = (
            f'{properties.name} has capability {number}, and torch is built for {" ".join(architectures)}: {REINSTALL}'
        )
        return Finding(name, says, WRONG, facts)
    told = f'{properties.name}, capability {number}, {properties.total_memory / GIB:.0f} GiB'
    if facts['shared_memory_per_block_optin']:
        told += f', {facts["shared_memory_per_block_optin"] // 1024} KiB shared memory per block'
    return Finding(name, told, OK, facts)


def covers(architectures: Sequence[str], capability: tuple[int, int]) -> bool:
    """Tell whether code for these architectures (``sm_90``, ``compute_90``) runs on a GPU of a capability.

    Binaries run on GPUs of the same major number and no smaller minor one, PTX on all later ones.
    """
    for architecture in architectures:
        kind, _, digits = architecture.partition('_')
        number = re.sub(r'\D', '', digits)
        built = int(number[:-1] or 0), int(number[-1:] or 0)
        reaches = built <= capability and (kind == 'compute' or built[0] == capability[0])
        # A letter behind the number binds to that very GPU.
        if reaches and (digits == number or built == capability):
            return True
    return False


def _driver(told: Sequence[str]) -> Finding:
    import torch

    versions = sorted({line.rpartition(', ')[2] for line in told})
    nccl = torch.cuda.nccl.version() if torch.distributed.is_nccl_available() else None  # type: ignore[no-untyped-call]
    facts = dict(driver=versions, cuda=torch.version.cuda, nccl=None if nccl is None else list(nccl))
    says = f'{", ".join(versions) or "of an unknown version"}; '
    says += f'NCCL {".".join(map(str, nccl))}' if nccl else 'no NCCL'
    return Finding('driver', says, OK, facts)


def _unseen(told: Sequence[str]) -> Finding:
    import torch

    facts = dict(nvidia_smi=list(told), cuda=torch.version.cuda)
    hidden = os.environ.get('CUDA_VISIBLE_DEVICES')
    if hidden in ('', '-1'):
        return Finding('GPU', f'{len(told)} hidden by CUDA_VISIBLE_DEVICES={hidden}', NOTE, facts)
    if torch.version.cuda is None:
        return Finding('GPU', f'{told[0]} is there, and torch is a build without CUDA: {REINSTALL}', WRONG, facts)
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]
        reason = 'it does not say why'
    except Exception as error:
        reason = one_line(error)
    says = f'{told[0]} (with its driver) is there, and torch for CUDA {torch.version.cuda} does not see it ({reason})'
    return Finding('GPU', f'{says}: install a newer driver, or a torch for an older CUDA', WRONG, facts)


def _belonging() -> Iterator[Finding]:
    """Look at what kernels and operators need beside the GPU."""
    if find_spec('triton') is None:
        yield Finding('kernels', 'Triton is not installed, so that plain PyTorch runs: `pip install triton`', WRONG)
    elif os.environ.get('TRITON_INTERPRET') == '1':
        yield Finding('kernels', 'TRITON_INTERPRET=1 runs them on the CPU: `unset TRITON_INTERPRET`', WRONG)
    else:
        yield _kernels()
    if find_spec('mmcv') is not None and find_spec('mmcv._ext') is not None:
        yield _mmcv_cuda()


def _kernels() -> Finding:
    import torch

    from coc_core.ops.triton import trial

    missing = compilers.missing_for_triton()
    if missing:
        return Finding('kernels', missing, WRONG)
    lacking = [sentence for sentence in map(trial.lacks, range(torch.cuda.device_count())) if sentence]
    if lacking:
        return Finding('kernels', f'{lacking[0]} Plain PyTorch runs, and nothing is compared below.', NOTE)
    return Finding('kernels', 'what Triton needs to launch them is there', OK)


def _mmcv_cuda() -> Finding:
    import torch
    from mmcv import _ext, ops

    cuda, name = ops.get_compiling_cuda_version(), 'mmcv on the GPU'
    if cuda == 'not available':
        says = "mmcv's operators were compiled for CPUs alone: `FORCE_CUDA=1 make setup` on a machine with nvcc"
        return Finding(name, says, WRONG, dict(cuda=None))
    architectures = architectures_of(_ext.__file__)
    facts = dict(cuda=cuda, architectures=architectures)
    wanted = [tuple(torch.cuda.get_device_capability(i)) for i in range(torch.cuda.device_count())]
    if architectures and not all(covers(architectures, (major, minor)) for major, minor in wanted):
        lacking = ' '.join(sorted({f'{major}.{minor}' for major, minor in wanted}))
        says = f"mmcv's operators are for {' '.join(architectures)}, the GPUs have capability {lacking}: "
        says += f'`FORCE_CUDA=1 TORCH_CUDA_ARCH_LIST="{lacking}" make setup` on a machine with nvcc'
        return Finding(name, says, WRONG, facts)
    return Finding(
        name, f'CUDA {cuda}, {" ".join(architectures) or "architectures not told (no cuobjdump)"}', OK, facts
    )


def architectures_of(library: str) -> list[str]:
    """Return the architectures that a library has code for, as CUDA's own tool lists them; none without that tool."""
    folders = os.environ.get('PATH', '').split(os.pathsep)
    triton = find_spec('triton')
    if triton is not None and triton.origin is not None:
        # A machine without CUDA's toolkit has the tool in Triton's wheel.
        folders.append(str(Path(triton.origin).parent / 'backends' / 'nvidia' / 'bin'))
    tool = shutil.which('cuobjdump', path=os.pathsep.join(folders))
    if tool is None:
        return []
    told = ''
    for option in ('--list-elf', '--list-ptx'):
        done = subprocess.run([tool, option, library], capture_output=True, text=True, timeout=60)
        told += done.stdout if option == '--list-elf' else done.stdout.replace('sm_', 'compute_')
    return sorted(set(re.findall(r'(?:sm|compute)_\d+[a-z]?', told)))
