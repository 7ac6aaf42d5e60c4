"""The machine: what it is called, and what it can do at best."""

from __future__ import annotations

import datetime
import os
import platform
from importlib import metadata
from pathlib import Path

import torch

from benchmarks.measuring import seconds_per_call

DTYPES = {'fp32': torch.float32, 'bf16': torch.bfloat16, 'fp16': torch.float16}
GEMM_SIDE = {'cpu': 2048, 'cuda': 8192}
COPY_BYTES = {'cpu': 256 * 2**20, 'cuda': 2**30}
TRIES = 5


def describe(device: torch.device) -> dict[str, str | int | None]:
    """Return hardware, versions, threads and date."""
    on_gpu = device.type == 'cuda'
    return {
        'device': device.type,
        'cpu': cpu_model(),
        'cores': len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count(),
        'gpu': torch.cuda.get_device_name(device) if on_gpu else None,
        'threads': torch.get_num_threads(),
        'torch': torch.__version__,
        'cuda': torch.version.cuda if on_gpu else None,
        'timm': _version('timm'),
        'triton': _version('triton'),
        'python': platform.python_version(),
        'date': datetime.date.today().isoformat(),
    }


def cpu_model() -> str:
    """Return the processor's name."""
    info = Path('/proc/cpuinfo')
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.partition(':')[2].strip() for line in lines if line.startswith('model name')]
    return names[0] if names else platform.processor() or platform.machine()


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def gemm_rate(device: torch.device, precision: str) -> float:
    """Return the floating-point operations per second of a large square product, the best of a few."""
    side = GEMM_SIDE[device.type]
    left, right, out = (torch.randn(side, side, device=device).to(DTYPES[precision]) for _ in range(3))
    # Not every processor multiplies half precision at a speed worth waiting for.
    first = seconds_per_call(lambda: torch.mm(left, right, out=out), device)
    tries = TRIES if first < 2.0 else 1
    return (
        2
        * side**3
        / min(first, *(seconds_per_call(lambda: torch.mm(left, right, out=out), device) for _ in range(tries)))
    )


def copy_bandwidth(device: torch.device) -> float:
    """Return the bytes per second, read and written together, of copying a large tensor: the best of a few."""
    source = torch.ones(COPY_BYTES[device.type], dtype=torch.uint8, device=device).view(torch.float32)
    target = torch.empty_like(source)
    target.copy_(source)
    return 2 * source.nbytes / min(seconds_per_call(lambda: target.copy_(source), device) for _ in range(TRIES))


def bounds(device: torch.device, precisions: tuple[str, ...]) -> dict[str, dict[str, float]]:
    """Return ``gemm`` (operations per second) and ``copy`` (bytes per second) for each precision."""
    copy = copy_bandwidth(device)
    return {precision: {'gemm': gemm_rate(device, precision), 'copy': copy} for precision in precisions}
