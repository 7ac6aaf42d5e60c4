"""Processor, memory, disk, shared memory, compilers: what a training finds beside its packages."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from coc_core import compilers
from coc_core.mm.doctor.findings import NOTE, OK, WRONG, Finding

GIB = 2**30
# Below these a training of the smallest variant stops: a checkpoint is written beside the last one, and data workers
# hand over whole batches.
LEAST_DISK = 2 * GIB
LEAST_SHARED_MEMORY = GIB
CGROUPS = Path('/sys/fs/cgroup')
OWN_CGROUPS = Path('/proc/self/cgroup')
SHARED_MEMORY = Path('/dev/shm')


def cores() -> Iterator[Finding]:
    """Look at the cores that this process may use."""
    facts = dict(machine=os.cpu_count(), affinity=affinity(), cgroup=core_limit())
    yield Finding('cores', f'{usable_cores():g} of {os.cpu_count()}, {platform.machine()}', OK, facts)


def threads() -> Iterator[Finding]:
    """Look at the threads that torch starts."""
    whole = max(1, round(usable_cores()))
    named = os.environ.get('OMP_NUM_THREADS')
    waiting = {name.lower(): os.environ.get(name) for name in ('OMP_WAIT_POLICY', 'GOMP_SPINCOUNT')}
    facts: dict[str, Any] = dict(omp_num_threads=named, **waiting)
    if named is not None and not named.replace(',', '').isdecimal():
        says = f'OMP_NUM_THREADS={named!r} is no number: `export OMP_NUM_THREADS={whole}`'
        yield Finding('threads', says, WRONG, facts)
        return
    import torch

    facts['torch'] = torch.get_num_threads()
    if facts['torch'] > whole:
        says = f'torch starts {facts["torch"]} on {usable_cores():g} cores: `export OMP_NUM_THREADS={whole}`'
        yield Finding('threads', says, WRONG, facts)
    else:
        yield Finding('threads', f'torch starts {facts["torch"]}', OK, facts)


def usable_cores() -> float:
    """Return how many cores' time this process may use."""
    limit = core_limit()
    return affinity() if limit is None else min(affinity(), limit)


def affinity() -> int:
    """Return the number of cores that the system lets this process run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1


def core_limit() -> float | None:
    """Return how many cores' time the control groups of this process (a container's, Slurm's) grant; None for all."""
    pairs = [_read(group / 'cpu.max').split() for group in _groups('')]
    pairs += [[_read(group / f'cpu.cfs_{name}_us') for name in ('quota', 'period')] for group in _groups('cpu')]
    limits = [int(pair[0]) / int(pair[1]) for pair in pairs if len(pair) == 2 and pair[0].isdecimal()]
    return min(limits, default=None)


def memory_limit() -> int | None:
    """Return how many bytes of memory the control groups of this process grant; None for all."""
    told = [_read(group / 'memory.max') for group in _groups('')]
    told += [_read(group / 'memory.limit_in_bytes') for group in _groups('memory')]
    # Where there is none, version 1 says a number beyond all machines.
    return min((int(each) for each in told if each.isdecimal() and int(each) < 2**60), default=None)


def _groups(controller: str) -> list[Path]:
    """Return the folders of this process's control groups and of those around them; version 2 has no controllers."""
    paths = [Path('/')]
    for line in _read(OWN_CGROUPS).splitlines():
        _, controllers, path = line.split(':', 2)
        if controller in controllers.split(','):
            paths = [Path(path), *Path(path).parents]
    return [CGROUPS / controller / path.relative_to('/') for path in paths]


def _read(file: Path) -> str:
    return file.read_text().strip() if file.is_file() else ''


def memory() -> Iterator[Finding]:
    """Look at the main memory."""
    total = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
    limit = memory_limit()
    facts = dict(total_bytes=total, cgroup_bytes=limit)
    granted = total if limit is None else min(total, limit)
    of = f' of {total / GIB:.1f}' if granted < total else ''
    yield Finding('memory', f'{granted / GIB:.1f}{of} GiB', OK, facts)


def disk(folder: Path | None = None) -> Iterator[Finding]:
    """Look at the disk that trainings write to: work_dirs/, or the folder that it will be made in."""
    folder = folder or next(each for each in (Path('work_dirs'), Path()) if each.is_dir())
    free = shutil.disk_usage(folder).free
    if free < LEAST_DISK:
        says = f'{free / GIB:.1f} GiB are free for work_dirs/: name a folder on another disk, `--work-dir DIR`'
        yield Finding('disk', says, WRONG, dict(free_bytes=free))
    else:
        yield Finding('disk', f'{free / GIB:.1f} GiB free for work_dirs/', OK, dict(free_bytes=free))


def shared_memory() -> Iterator[Finding]:
    """Look at the memory through which data workers hand over their batches."""
    if not SHARED_MEMORY.is_dir():
        yield Finding('/dev/shm', 'not of this system', OK)
        return
    usage = shutil.disk_usage(SHARED_MEMORY)
    facts = dict(total_bytes=usage.total, free_bytes=usage.free)
    told = f'{usage.free / GIB:.2f} of {usage.total / GIB:.2f} GiB free'
    if usage.free < LEAST_SHARED_MEMORY:
        says = f'{told}, too little for data workers: of a container `docker run --shm-size=8g` or `--ipc=host`'
        yield Finding('/dev/shm', f'{says}; else train_dataloader.num_workers=0', WRONG, facts)
    else:
        yield Finding('/dev/shm', told, OK, facts)


def compiler_tools() -> Iterator[Finding]:
    """Look at what mmcv's operators and Triton's launcher are compiled with; whether it matters is told of a GPU."""
    c, cpp, headers = compilers.c_compiler(), compilers.cpp_compiler(), compilers.has_python_headers()
    without = {
        'C compiler': (c, 'apt install gcc', 'Triton launches no kernel on a GPU'),
        'C++ compiler': (cpp, 'apt install g++', "mmcv's operators cannot be compiled"),
        'Python.h': (headers, compilers.headers_command(), "Triton's launcher and mmcv's operators cannot be compiled"),
    }
    for name, (found, command, loss) in without.items():
        says = (Path(found).name if isinstance(found, str) else 'found') if found else f'none, so that {loss}'
        facts = dict(found=bool(found))
        yield Finding(name, says if found else f'{says}: `{command}`', OK if found else NOTE, facts)
