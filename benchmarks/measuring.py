"""How long a call takes, and how much memory it holds at its peak."""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch.profiler import ProfilerActivity, profile

# A sample is the mean over as many calls as fill this time: a clock read after one short call measures itself.
SAMPLE_SECONDS = 0.2
LONG_SECONDS = 1.0


def seconds_per_call(call: Callable[[], object], device: torch.device, calls: int = 1) -> float:
    """Return the mean seconds of ``calls`` calls, of the device's own clock where it is a GPU."""
    if device.type == 'cuda':
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize(device)
        start.record()
        for _ in range(calls):
            call()
        end.record()
        torch.cuda.synchronize(device)
        return start.elapsed_time(end) / 1e3 / calls
    begin = time.perf_counter()
    for _ in range(calls):
        call()
    return (time.perf_counter() - begin) / calls


def warm_up(call: Callable[[], object], device: torch.device) -> int:
    """Call until the first, slower call is over; return how many calls make one sample."""
    seconds = seconds_per_call(call, device)
    if seconds < LONG_SECONDS:
        seconds = min(seconds_per_call(call, device) for _ in range(3))
    return max(1, round(SAMPLE_SECONDS / max(seconds, 1e-7)))


def interleave(
    calls: dict[str, Callable[[], object]], counts: dict[str, int], rounds: int, device: torch.device
) -> dict[str, list[float]]:
    """Time every call once a round, one after the other, so that what slows the machine slows all of them.

    Args:
        calls: By name.
        counts: How many calls make one sample, of each.
        rounds: Samples of each.
        device: Where the calls work.

    Returns:
        Seconds per call, [rounds] by name.
    """
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            seconds[name].append(seconds_per_call(call, device, counts[name]))
    return seconds


def paired_ratios(reference: Sequence[float], own: Sequence[float]) -> dict[str, float]:
    """Return median, min and max of how often ``own`` goes into ``reference``, round by round."""
    return median_and_range([a / b for a, b in zip(reference, own, strict=True)])


def median_and_range(samples: Sequence[float]) -> dict[str, float]:
    """Return median, min and max."""
    return {'median': statistics.median(samples), 'min': min(samples), 'max': max(samples)}


def peak_memory(call: Callable[[], object], device: torch.device) -> int:
    """Return the most bytes of tensors that ``call`` held at a time beside those that were there before it."""
    if device.type == 'cuda':
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        call()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    with (
        _quiet_stderr(),
        profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as profiler,
    ):
        call()
    assert profiler.profiler is not None and profiler.profiler.kineto_results is not None
    events = [
        (event.start_ns(), event.nbytes())
        for event in profiler.profiler.kineto_results.events()
        if event.name() == '[memory]' and event.device_type() == torch.autograd.DeviceType.CPU
    ]
    held = peak = 0
    for _, size in sorted(events, key=lambda event: event[0]):
        held += size
        peak = max(peak, held)
    return peak


def process_memory(device: torch.device) -> int:
    """Return the most bytes that this process has held so far: tensors on a GPU, else all resident memory."""
    if device.type == 'cuda':
        return torch.cuda.max_memory_allocated(device)
    # macOS counts bytes, Linux KiB.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == 'darwin' else 1024)


@contextmanager
def busy_processes(number: int) -> Iterator[None]:
    """Have processes that do nothing but compute beside this one."""
    processes = [subprocess.Popen([sys.executable, '-c', 'while True: pass']) for _ in range(number)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


@contextmanager
def _quiet_stderr() -> Iterator[None]:
    """Keep what the profiler writes there by itself back, unless something fails."""
    sys.stderr.flush()
    saved = os.dup(2)
    with tempfile.TemporaryFile() as kept:
        os.dup2(kept.fileno(), 2)
        try:
            yield
        except BaseException:
            os.dup2(saved, 2)
            kept.seek(0)
            sys.stderr.write(kept.read().decode(errors='replace'))
            raise
        finally:
            os.dup2(saved, 2)
            os.close(saved)
