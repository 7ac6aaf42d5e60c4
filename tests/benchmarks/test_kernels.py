"""What the Triton kernels take on GPUs that are not here: read off the machine code that is compiled for them.

``make test`` compiles a few; PYTEST_ARGS='-m kernels' all, for an hour.
"""

import json
import subprocess
import sys

import pytest
from processes import run_compiling

pytest.importorskip('triton')

from coc_core.files import project_folder
from coc_core.ops.triton import plan

TOOL = project_folder() / 'tools' / 'analysis_tools' / 'inspect_kernels.py'
VARIANTS = """
import json, random
from benchmarks import kernels
random.seed(0)
shape = next(s for s in kernels.inspected_shapes() if s.name.startswith(ARCH))
sizes = [(random.randint(1, 200), random.randint(1, 336), random.randint(1, 16)) for _ in range(200)]
shapes = [shape._replace(batch=b, height=h * shape.region_grid, width=w * shape.region_grid) for h, w, b in sizes]
print(json.dumps(kernels.count_variants(shapes, 'bf16')))
"""


def inspect(tmp_path, *options):
    out = tmp_path / 'kernels.json'
    command = [sys.executable, TOOL, *map(str, options), '--out', str(out)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=project_folder())
    assert done.returncode == 0, done.stderr
    return json.loads(out.read_text())['cases'], done.stdout


def check(case):
    """What holds at every published shape."""
    half = case['precision'] != 'fp32'
    for figures in case['kernels']:
        assert figures['spilled_bytes'] <= 64, (case, figures)
        assert not (half and figures['narrow_loads']), (case, figures)
        if half and case['shape'].startswith(('coc_tiny stage', 'coc_small stage')):
            assert figures['registers'] <= 128, (case, figures)
    # What the smallest of these GPUs lends a program.
    assert max(figures['shared_bytes'] for figures in case['kernels']) <= 101376


@pytest.mark.parametrize(
    ('shape', 'precision', 'architecture'),
    [('coc_tiny stage 1', 'bf16', 120), ('coc_small stage', 'fp16', 90), ('coc_medium-49', 'bf16', 100)],
)
def test_what_kernels_take(tmp_path, shape, precision, architecture):
    cases, told = inspect(tmp_path, '--shape', shape, '--precision', precision, '--architecture', architecture)
    assert len(cases) == 1
    check(cases[0])
    names = [figures['kernel'] for figures in cases[0]['kernels']]
    assert all(name in told for name in names) and len(set(names)) == len(names)


@pytest.mark.kernels
@pytest.mark.parametrize('architecture', [80, 86, 89, 90, 100, 120])
def test_every_published_shape(tmp_path, architecture):
    cases, _ = inspect(tmp_path, '--architecture', architecture)
    assert len(cases) >= 30
    for case in cases:
        check(case)


def test_sizes_of_maps_compile_nothing_anew():
    code = VARIANTS.replace('ARCH', repr('coc_tiny stage 1'))
    variants = json.loads(run_compiling(code))
    assert {'forward_whole', 'pool_chunk', 'points_backward_chunk'} <= set(variants)
    assert all(number == 1 for number in variants.values()), variants


def test_one_process_compiles_for_each_architecture():
    code = "print(len({inspect_mlp(16, 16, 'bf16', architecture)[1:] for architecture in (80, 90)}))"
    assert run_compiling(f'from benchmarks.kernels import inspect_mlp\n{code}') == '2\n'


def test_an_unknown_shape_is_told():
    done = subprocess.run([sys.executable, TOOL, '--shape', 'resnet'], capture_output=True, text=True)
    assert done.returncode and "--shape 'resnet' is in the name of no shape: " in done.stderr


def test_shared_memory_is_bounded():
    known = json.loads((project_folder() / 'benchmarks' / 'results' / 'kernels.json').read_text())['cases']
    for case in known:
        centers, dim = case['centers'], case['dim']
        bound = plan.shared_bytes(centers, dim, dim, 4 if case['precision'] == 'fp32' else 2)
        assert all(figures['shared_bytes'] <= bound for figures in case['kernels']), case
