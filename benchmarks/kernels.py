"""Compiles the Triton kernels for GPUs that need not be there, and reads off the machine code what they take.

A program counts what is outside its loops once, and what is inside as often as its points need. What a GPU makes of it
is another question: this tells how much there is to do, not how long it takes.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

from coc_core.errors import UserError
from coc_core.mm.doctor.shapes import Shape, published_shapes
from coc_core.ops.triton import launch, launch_mlp, launch_norm

ARCHITECTURES = (80, 86, 89, 90, 100, 120)
PRECISIONS = {'bf16': torch.bfloat16, 'fp16': torch.float16, 'fp32': torch.float32}
# Multiprocessors of an H100: they decide into how many chunks a region is cut.
PROCESSORS = 132
_CUOBJDUMP = Path(triton.__file__).parent / 'backends' / 'nvidia' / 'bin' / 'cuobjdump'
_INSTRUCTION = re.compile(r'^\s*/\*([0-9a-f]{4,})\*/\s+(.*?);', re.MULTILINE)
_SPILL = re.compile(r'STL(?:\.(64|128))?\b')
# Of point clouds: groups of neighbors, and the layer of a stage. A cloud is a map of one column.
CLOUDS = [
    Shape('pointmlp group', 1024, 24, 1, 1, 64, 1, 1),
    Shape('pointmlp wide group', 1024, 24, 1, 1, 256, 1, 1),
    Shape('pointmlp stage', 32, 64, 1, 1, 256, 1, 1),
]


class Figures(NamedTuple):
    """What a kernel takes on one architecture.

    Attributes:
        kernel: Its name.
        programs: How many are launched.
        warps: Of a program.
        registers: Of a thread.
        shared_bytes: Of a program.
        spilled_bytes: Written by a thread where registers do not suffice.
        narrow_loads: Instructions that load one number of half precision each.
        instructions: That a program's warps issue, all together.
    """

    kernel: str
    programs: int
    warps: int
    registers: int
    shared_bytes: int
    spilled_bytes: int
    narrow_loads: int
    instructions: int


class _StandIn:
    """A driver without a GPU: kernels are compiled, not launched."""

    def __init__(self, architecture: int) -> None:
        self.architecture = architecture

    def get_current_target(self) -> GPUTarget:
        return GPUTarget('cuda', self.architecture, 32)

    def get_current_device(self) -> int:
        # A kernel keeps what is compiled by device, and would hand out one architecture's for another.
        return self.architecture

    def get_current_stream(self, device: int) -> int:
        return 0


def inspected_shapes() -> list[Shape]:
    """Return a shape for each kind of kernel that published models launch, with the batch of a training."""
    shapes = {shape.kernel: shape for shape in reversed([*published_shapes(), *CLOUDS])}
    return [shape._replace(batch=max(shape.batch, 32)) for shape in reversed(shapes.values())]


@contextmanager
def compiling(architecture: int, run: Any) -> Iterator[None]:
    """Have what is launched handed to ``run``, for a GPU of an architecture such as 90.

    Raises:
        UserError: The kernels are interpreted in this process.
    """
    if triton.knobs.runtime.interpret:
        raise UserError('Kernels that are interpreted cannot be compiled: unset TRITON_INTERPRET.')
    before = launch.run, launch.processors
    # There is none to go back to where there is no GPU.
    driver.set_active(_StandIn(architecture))
    launch.run, launch.processors = run, lambda x: PROCESSORS
    try:
        yield
    finally:
        launch.run, launch.processors = before


def launch_all(shape: Shape, dtype: torch.dtype) -> None:
    """Launch the kernels of a shape, forward and backward, on tensors without memory."""
    *size, centers, regions = shape[1:]
    points_values = torch.empty(*size[:3], 2, *size[3:], dtype=dtype, device='meta')
    points, values = points_values.unbind(dim=3)
    one = torch.empty(1, device='meta')
    problem = launch.problem_of(points, values, (centers, centers), (regions, regions), False)
    mixed, state = launch.forward((points, values, one, one), problem)
    launch.backward(mixed, (points, values, one, one), state, torch.empty_like(points_values).unbind(3), problem)


def inspect(shape: Shape, precision: str, architecture: int) -> list[Figures]:
    """Return what each kernel of a shape takes.

    Args:
        shape: A map of points, and how it is clustered.
        precision: A key of `PRECISIONS`.
        architecture: Ten times the compute capability, such as 90.

    Raises:
        UserError: The kernels are interpreted in this process.
    """
    found: list[Figures] = []
    points = shape.batch * shape.height * shape.width * shape.heads

    def run(kernel: Any, programs: int, *arguments: Any, warps: int, **sizes: Any) -> None:
        binary = kernel.warmup(*arguments, grid=(programs,), num_warps=warps, num_stages=1, **sizes)
        block = sizes.get('BLOCK_N') or sizes.get('FEW_N')
        # What joins chunks takes 16 of them at a time.
        trips = -(-points // programs // block) if block else -(-arguments[-1] // 16)
        found.append(Figures(kernel.__name__, programs, warps, *_read(binary, warps, trips)))

    with compiling(architecture, run):
        launch_all(shape, PRECISIONS[precision])
    return found


def inspect_norm(channels: int, precision: str, architecture: int) -> list[tuple[Any, ...]]:
    """Return of each kernel of the norm its name and what `_read` finds; arguments as of `inspect`."""
    found: list[tuple[Any, ...]] = []

    def run(kernel: Any, programs: int, *arguments: Any, warps: int, **sizes: Any) -> None:
        binary = kernel.warmup(*arguments, grid=(programs,), num_warps=warps, num_stages=1, **sizes)
        found.append((kernel.__name__, *_read(binary, warps, 1)))

    with compiling(architecture, run):
        x = torch.empty(32, 56, 56, channels, dtype=PRECISIONS[precision], device='meta')
        weight = torch.empty(channels, device='meta')
        out, statistics = launch_norm.forward(x, weight, weight, 1e-5, x.dtype)
        launch_norm.backward(out, x, weight, statistics)
    return found


def inspect_mlp(channels: int, hidden: int, precision: str, architecture: int) -> tuple[Any, ...]:
    """Return the name of the MLP's kernel and what `_read` finds; arguments as of `inspect`."""
    found: list[tuple[Any, ...]] = []

    def run(kernel: Any, programs: int, *arguments: Any, warps: int, **sizes: Any) -> None:
        binary = kernel.warmup(*arguments, grid=(programs,), num_warps=warps, num_stages=1, **sizes)
        found.append((kernel.__name__, *_read(binary, warps, -(-hidden // sizes['BLOCK_E']))))

    with compiling(architecture, run):
        shapes = (32 * 56 * 56, channels), (hidden, channels), (hidden,), (channels, hidden), (channels,)
        launch_mlp.forward(*(torch.empty(shape, dtype=PRECISIONS[precision], device='meta') for shape in shapes))
    return found[0]


def per_point(figures: list[Figures], shape: Shape) -> tuple[float, float]:
    """Return the instructions of a warp that a point of one head takes, forward and backward."""
    points = shape.batch * shape.height * shape.width * shape.heads
    last = next(i for i, each in enumerate(figures) if each.kernel in ('forward_whole', 'dispatch_chunk')) + 1
    forward, backward = (sum(f.programs * f.instructions for f in part) for part in (figures[:last], figures[last:]))
    return forward / points, backward / points


def count_variants(shapes: list[Shape], precision: str) -> dict[str, int]:
    """Return how many variants of each kernel are compiled for some shapes."""
    keys: dict[str, set[Any]] = {}

    def run(kernel: Any, programs: int, *arguments: Any, warps: int, **sizes: Any) -> None:
        kernel.warmup(*arguments, grid=(programs,), num_warps=warps, num_stages=1, **sizes)
        keys.setdefault(kernel.__name__, set()).update(kernel.device_caches[driver.active.get_current_device()][0])

    with compiling(90, run):
        for shape in shapes:
            launch_all(shape, PRECISIONS[precision])
    return {name: len(each) for name, each in keys.items()}


def _read(binary: Any, warps: int, trips: int) -> tuple[int, ...]:
    """Return registers, shared memory, spilled bytes, narrow loads and instructions of a compiled kernel."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / 'kernel.cubin'
        file.write_bytes(binary.asm['cubin'])
        sass, usage = (_dump(option, file) for option in ('-sass', '-res-usage'))
    code = {int(address, 16): text for address, text in _INSTRUCTION.findall(sass)}
    last = max(address for address, text in code.items() if 'EXIT' in text)
    code = {address: text for address, text in code.items() if address <= last and 'NOP' not in text}
    jumps = ((re.search(r'BRA\b.*?0x([0-9a-f]+)', text), address) for address, text in code.items())
    loops = [(int(to[1], 16), address) for to, address in jumps if to and int(to[1], 16) <= address]
    inside = sum(any(first <= address <= end for first, end in loops) for address in code)
    spilled = sum(int(found[1] or 32) // 8 for found in map(_SPILL.search, code.values()) if found)
    narrow = sum('LDG' in text and '.U16' in text for text in code.values())
    registers = int(re.search(r'REG:(\d+)', usage)[1])  # type: ignore[index]
    return registers, binary.metadata.shared, spilled, narrow, warps * (len(code) - inside + inside * trips)


def _dump(option: str, file: Path) -> str:
    return subprocess.run([_CUOBJDUMP, option, file], capture_output=True, text=True, check=True).stdout
