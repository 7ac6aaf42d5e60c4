"""``impl='auto'`` tries the kernels before it rests on them, and goes on with plain PyTorch where they do not run.

The device is a CPU, which stands in for a GPU: kernels are interpreted, and a launcher that raises for those that a GPU
refuses.
"""

import itertools
import subprocess
import warnings
from types import SimpleNamespace

import pytest
import torch
from torch.testing import assert_close

from coc_core import compilers, create_model, ops
from coc_core.layers import ClusterMixer, MapNorm, RowwiseMlp
from coc_core.ops import dispatch, mlp
from coc_core.ops.dispatch import TABLE, choose
from coc_core.ops.triton import launch, plan, trial
from coc_core.ops.triton.launch import Problem

errors = pytest.importorskip('triton.runtime.errors')
compile_errors = pytest.importorskip('triton.compiler.errors')
pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason='The CPU stands in for a GPU.')
KINDS = [
    errors.OutOfResources(270336, 232448, 'shared memory'),
    errors.PTXASError('Unsupported .version 8.8'),
    compile_errors.CompilationError(None, object(), 'no such instruction'),
    subprocess.CalledProcessError(1, ['gcc']),
    RuntimeError('PassManager::run failed'),
    ImportError('cuda_utils.so: undefined symbol'),
    PermissionError(13, 'Permission denied: cache'),
]
GRIDS = dict(center_grid=2, region_grid=1)
ALL = ['forward_whole', 'values_backward_whole', 'points_backward_whole']


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    """A process that has tried nothing yet."""
    monkeypatch.setattr(trial, '_refusals', itertools.count())
    for known in (trial._tried, trial._lacks):
        known.cache_clear()
    yield
    for known in (trial._tried, trial._lacks):
        known.cache_clear()


@pytest.fixture
def served(monkeypatch):
    """Have the CPU served as a GPU is that lacks nothing."""
    table = {
        name: tuple(dispatch.replace(row, device='cpu') if row.name == 'triton' else row for row in rows)
        for name, rows in TABLE.items()
    }
    monkeypatch.setattr(dispatch, 'TABLE', table)
    monkeypatch.setattr(trial, 'lacks', lambda index, shared_bytes: '')


def refuse(monkeypatch, error, kernels=('forward_whole', 'points_backward_whole')):
    """Have the launcher raise an error for some kernels."""
    run, tried = launch.run, []

    def refusing(kernel, *arguments, **options):
        tried.append(kernel.__name__)
        if kernel.__name__ in kernels:
            raise error
        run(kernel, *arguments, **options)

    monkeypatch.setattr(launch, 'run', refusing)
    return tried


def call(impl='auto', size=4, dtype=torch.float32):
    x = torch.randn(1, size, size, 2, 8, generator=torch.Generator().manual_seed(0)).to(dtype).requires_grad_()
    one = torch.ones(1)
    out = ops.cluster(x, x, one, one, **GRIDS, impl=impl)
    return out, *torch.autograd.grad(out.sum(), [x])


@pytest.mark.usefixtures('served')
def test_what_runs_is_tried_once_and_serves(monkeypatch):
    tried = refuse(monkeypatch, None, kernels=())
    with warnings.catch_warnings(action='error'):
        for got, want in zip(call(), call('plain'), strict=True):
            assert_close(got, want)
    assert tried == ALL * 2
    call()
    assert len(tried) == 9
    call(dtype=torch.float16)
    assert len(tried) == 15


@pytest.mark.usefixtures('served')
@pytest.mark.parametrize('error', KINDS, ids=lambda error: type(error).__name__)
def test_what_is_refused_is_served_by_plain_pytorch(monkeypatch, error):
    refuse(monkeypatch, error)
    with pytest.warns(UserWarning, match=f'do not run here for torch.float32.*{type(error).__name__}') as warned:
        got = call()
    assert 'Plain PyTorch runs instead' in str(warned[0].message) and len(warned) == 1
    assert all(torch.equal(g, w) for g, w in zip(got, call('plain'), strict=True))
    with warnings.catch_warnings(action='error'):
        call()
        # Another shape is another trial, and is told of no more.
        call(size=6)
    with pytest.raises(type(error)):
        call('triton')


@pytest.mark.usefixtures('served')
def test_a_backward_that_is_refused_is_known_before_the_forward(monkeypatch):
    tried = refuse(monkeypatch, KINDS[0], kernels=('points_backward_whole',))
    with pytest.warns(UserWarning, match='OutOfResources'):
        got = call()
    assert tried == ALL
    assert all(torch.equal(g, w) for g, w in zip(got, call('plain'), strict=True))


@pytest.mark.usefixtures('served')
def test_a_device_that_is_dead_is_not_used_again(monkeypatch):
    error = RuntimeError('Triton Error [CUDA]: an illegal memory access was encountered')
    refuse(monkeypatch, error)
    monkeypatch.setattr(trial, 'is_dead', lambda device: True)
    for _ in range(2):
        with pytest.raises(RuntimeError, match='illegal memory access'):
            call()


@pytest.mark.usefixtures('served')
def test_full_memory_and_mistakes_of_our_own_are_no_refusal(monkeypatch):
    with monkeypatch.context() as patch:
        refuse(patch, torch.OutOfMemoryError('CUDA out of memory'))
        # The trial leaves it to the call, which fails by itself.
        with pytest.raises(torch.OutOfMemoryError):
            call()
    refuse(monkeypatch, TypeError('run() got an unexpected argument'))
    with pytest.raises(TypeError):
        call(size=6)


@pytest.mark.usefixtures('served')
def test_a_model_goes_on_and_says_why(monkeypatch):
    refuse(monkeypatch, KINDS[0])
    model = create_model('coc_tiny', num_classes=3).eval()
    images = torch.randn(1, 3, 32, 32)
    with pytest.warns(UserWarning, match='OutOfResources'):
        logits = model(images)
    mixer = model.stages[0].blocks[0].mixer
    choice = choose(mixer, torch.zeros(1, 8, 8, 32))
    assert choice.row.name == 'plain' and 'OutOfResources' in choice.why
    # Nothing is tried where sizes are not known, or where a graph is made.
    assert choose(mixer, torch.zeros(32)).row.name == 'triton'
    ops.set_implementation(model, 'plain')
    assert_close(logits, model(images), rtol=1e-5, atol=1e-5)


@pytest.mark.usefixtures('served')
def test_inference_mode_and_autocast(monkeypatch):
    tried = refuse(monkeypatch, None, kernels=())
    mixer = ClusterMixer(6, 2, 8, **GRIDS)
    with torch.inference_mode(), torch.autocast('cpu', dtype=torch.bfloat16):
        assert mixer(torch.randn(1, 4, 4, 6)).dtype == torch.bfloat16
    assert tried == [*ALL, 'forward_whole']
    # What was tried there serves a training, too.
    with torch.autocast('cpu', dtype=torch.bfloat16):
        mixer(torch.randn(1, 4, 4, 6)).sum().backward()
    assert len(tried) == 7


@pytest.mark.usefixtures('served')
def test_norms_are_tried_for_each_number_of_channels(monkeypatch):
    tried, x = refuse(monkeypatch, None, kernels=()), torch.randn(1, 3, 5, 6)
    norms = MapNorm(6), MapNorm(6), MapNorm(4)
    forward, backward = ['norm_statistics', 'norm_apply'], ['norm_gradient_sums', 'norm_gradient']
    assert_close(norms[0](x), norms[0].forward_plain(x))
    # On a map of each precision that autocast may give.
    assert tried == (forward + backward) * 2 + forward
    norms[1](x)
    assert len(tried) == 12
    norms[2](x[..., :4])
    assert len(tried) == 22


@pytest.mark.usefixtures('served')
@pytest.mark.parametrize('kernel', ['norm_apply', 'norm_gradient'])
def test_norms_that_are_refused_are_plain(monkeypatch, kernel):
    refuse(monkeypatch, KINDS[0], kernels=(kernel,))
    norm, x = MapNorm(6), torch.randn(1, 3, 5, 6)
    with pytest.warns(UserWarning, match='float32, norms of 6 channels .*OutOfResources'):
        y = norm(x)
    assert torch.equal(y, norm.forward_plain(x)) and choose(norm, x).row.name == 'plain'


@pytest.mark.usefixtures('served')
def test_mlps_are_tried_for_each_width_and_served_in_pieces_where_they_are_refused(monkeypatch):
    tried, x = refuse(monkeypatch, None, kernels=()), torch.randn(1, 3, 5, 6).half()
    small, same, wide = RowwiseMlp(6, 8).half(), RowwiseMlp(6, 8).half(), RowwiseMlp(6, 9).half()
    assert_close(small(x), small.forward_plain(x), rtol=1e-2, atol=1e-3)
    same(x)
    assert tried == ['mlp_forward'] * 3
    refuse(monkeypatch, KINDS[0], kernels=('mlp_forward',))
    with pytest.warns(UserWarning, match='float16, MLPs of 6, 9 and 6 channels .*OutOfResources'):
        y = wide(x)
    choice = choose(wide, x)
    assert torch.equal(y, mlp.mlp(wide, x)) and choice.row.function is mlp.mlp and 'OutOfResources' in choice.why
    # float32 has no kernel to be tried.
    wide.float()(x.float())
    assert choose(small, x).row.function is mlp.kernel_mlp


@pytest.mark.usefixtures('served')
def test_a_graph_that_is_made_is_not_tried(monkeypatch):
    tried = refuse(monkeypatch, None, kernels=())
    mixer, x = ClusterMixer(6, 2, 8, **GRIDS), torch.randn(1, 4, 4, 6)
    got = torch.compile(mixer, backend='aot_eager', fullgraph=True)(x)
    assert tried == ['forward_whole'] and trial._tried.cache_info().currsize == 0
    assert torch.equal(got, mixer(x))


@pytest.mark.usefixtures('served')
def test_regions_that_are_cut_into_chunks_are_tried_once(monkeypatch):
    tried = refuse(monkeypatch, KINDS[0], kernels=('pool_chunk',))
    monkeypatch.setattr(plan, 'WHOLE_POINTS', 0)
    with pytest.warns(UserWarning, match='4 centers and heads of 8 channels'):
        call(size=4)
    call(size=6)
    assert tried == ['pool_chunk']


def test_stages_that_launch_the_same_kernels_are_one_kind():
    first, second = (Problem(8, 4, n, n, 7, 7, 2, 2, 24, 24, 4, False) for n in (8, 4))
    kinds = {trial.kind_of(problem, torch.float16) for problem in (first, second, first._replace(height=9))}
    assert len(kinds) == 1 and kinds.pop().sizes[0].points <= 16
    # Other kernels: another precision, and a region that is cut into chunks.
    others = {trial.kind_of(first, torch.float32), trial.kind_of(first._replace(height=100), torch.float16)}
    assert len(others - kinds) == 2


@pytest.mark.parametrize(
    ('hip', 'capability', 'shared', 'missing', 'sentence'),
    [
        (None, (9, 0), 232448, '', ''),
        ('6.4', (9, 4), 65536, '', 'The kernels are made for CUDA, not for ROCm.'),
        (None, (7, 5), 65536, '', 'The kernels need a GPU of capability 8.0, and this one has 7.5.'),
        (None, (8, 6), 101376, 'Triton needs a C compiler', 'Triton needs a C compiler'),
        (None, (8, 6), 99999, '', 'need up to 100,000 bytes of shared memory here, more than this GPU has.'),
    ],
)
def test_what_a_gpu_lacks(monkeypatch, hip, capability, shared, missing, sentence):
    monkeypatch.setattr(torch.version, 'hip', hip)
    monkeypatch.setattr(torch.cuda, 'get_device_capability', lambda index: capability)
    monkeypatch.setattr(compilers, 'missing_for_triton', lambda: missing)
    monkeypatch.setattr(torch.cuda, 'is_current_stream_capturing', lambda: True)
    properties = SimpleNamespace(shared_memory_per_block_optin=shared)
    monkeypatch.setattr(torch.cuda, 'get_device_properties', lambda index: properties)
    problem = Problem(1, 2, 1, 1, 4, 4, 2, 2, 8, 8, 4, False)
    with warnings.catch_warnings(record=True, action='always') as warned:
        # While a CUDA graph is captured nothing is tried.
        refusal = trial.refusal(torch.device('cuda', 0), torch.float32, 100_000, problem)
    assert sentence in refusal and bool(sentence) == bool(refusal)
    assert len(warned) == bool(sentence)


def test_a_compiler_takes_what_a_gpu_lacks_for_a_constant(monkeypatch):
    monkeypatch.setattr(compilers, 'missing_for_triton', lambda: 'lacking')
    monkeypatch.setattr(torch.cuda, 'get_device_capability', lambda index: (9, 0))
    properties = SimpleNamespace(shared_memory_per_block_optin=232448)
    monkeypatch.setattr(torch.cuda, 'get_device_properties', lambda index: properties)

    def function(x):
        return x + len(trial.lacks(x.device.index, 4096))

    compiled = torch.compile(function, backend='eager', fullgraph=True)
    with pytest.warns(UserWarning, match='lacking'):
        assert compiled(torch.zeros(1)).item() == len('lacking')
