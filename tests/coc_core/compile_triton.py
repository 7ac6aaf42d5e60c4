"""Compile the kernels for sm_90 without a GPU, with the arguments that the launcher gives them; print what they take.

python tests/coc_core/compile_triton.py [case ...]    # all cases without arguments
"""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

os.environ['TRITON_INTERPRET'] = '0'

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

from coc_core.ops.triton import launch

PTXAS = Path(triton.__file__).parent / 'backends' / 'nvidia' / 'bin' / 'ptxas'


class Case(NamedTuple):
    """Maps of points and values, and how they are clustered."""

    batch: int
    height: int
    width: int
    heads: int
    dim: int
    center_grid: tuple[int, int]
    region_grid: tuple[int, int] = (1, 1)


CASES = {
    'coc_tiny': Case(32, 56, 56, 4, 24, center_grid=(2, 2), region_grid=(8, 8)),
    'coc_small_49': Case(1, 200, 336, 4, 32, center_grid=(7, 7), region_grid=(8, 8)),
    'coc_tiny_plain': Case(32, 56, 56, 4, 24, center_grid=(4, 4)),
    'pointmlp_group': Case(1024, 24, 1, 1, 256, center_grid=(1, 1)),
    'pointmlp_coc': Case(32, 64, 1, 1, 256, center_grid=(1, 1)),
    'largest': Case(1, 200, 336, 1, 256, center_grid=(8, 8)),
}


class Hopper:
    """Stands in for a driver with a GPU: kernels are compiled, not launched."""

    def get_current_target(self) -> GPUTarget:
        return GPUTarget('cuda', 90, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


def compiled(kernel: Any, programs: int, *arguments: Any, warps: int, stages: int = 1, **sizes: Any) -> None:
    """Takes the place of `launch.run`."""
    binary = kernel.warmup(*arguments, grid=(programs,), num_warps=warps, num_stages=stages, **sizes)
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / 'kernel.ptx'
        source.write_text(binary.asm['ptx'])
        command = [PTXAS, '-v', '--gpu-name=sm_90a', source, '-o', source.with_suffix('.cubin')]
        told = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    registers, spilled = (int(re.search(p, told)[1]) for p in (r'Used (\d+) registers', r'(\d+) bytes spill stores'))
    shared = binary.metadata.shared
    print(
        f'{name:15} {kernel.__name__:20} {dtype!s:14} {programs:6} programs, {warps} warps, {registers:3} registers, '
        f'{shared:6} bytes shared, {spilled} bytes spilled',
        flush=True,
    )
    if shared > 227 * 1024:
        raise SystemExit(f'{kernel.__name__} takes more shared memory than a multiprocessor has.')


driver.set_active(Hopper())
launch.run = compiled
launch._processors = lambda x: 132
for name in sys.argv[1:] or CASES:
    case = CASES[name]
    for dtype in (torch.bfloat16, torch.float32):
        packed = torch.empty(case.batch, case.height, case.width, 2, case.heads, case.dim, dtype=dtype, device='meta')
        points, values = packed.unbind(dim=3)
        scalar = torch.empty(1, device='meta')
        problem = launch.problem_of(points, values, case.center_grid, case.region_grid, False)
        inputs = points, values, scalar, scalar
        mixed, state = launch.forward(inputs, problem)
        launch.backward(mixed, inputs, state, torch.empty_like(packed).unbind(3), problem)
