"""The fused kernels equal the reference operator: interpreted where there is no GPU, compiled on one where there is."""

import subprocess
import sys
from typing import NamedTuple

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from coc_core.ops import assign, cluster
from coc_core.ops.triton import cluster as cluster_triton
from coc_core.ops.triton import launch, operator, plan

pytest.importorskip('triton')
DEVICE = 'cuda' if torch.cuda.is_available() else 'cpu'
FORMS = ['whole', 'chunks']


class Case(NamedTuple):
    """Maps of points and values, and how they are clustered."""

    batch: int
    height: int
    width: int
    heads: int
    dim: int
    # That of the points where it says nothing.
    values_dim: int | None = None
    center_grid: int | tuple[int, int] = 2
    region_grid: int | tuple[int, int] = 1

    @property
    def size(self):
        return self.batch, self.height, self.width, self.heads

    @property
    def dims(self):
        return self.dim, self.dim if self.values_dim is None else self.values_dim

    def __str__(self):
        size, dims = 'x'.join(map(str, self.size)), '+'.join(map(str, self.dims))
        return f'{size}x({dims}), centers {self.center_grid}, regions {self.region_grid}'


CASES = [
    Case(2, 8, 6, 1, 24, region_grid=2),
    Case(1, 9, 7, 3, 5, values_dim=20, center_grid=5),
    Case(1, 6, 4, 1, 33, values_dim=7, center_grid=(3, 1), region_grid=(2, 2)),
    Case(1, 3, 5, 1, 16, center_grid=(2, 4), region_grid=(1, 1)),
    Case(1, 1, 1, 2, 4),
    Case(2, 37, 1, 1, 100, center_grid=1),
    Case(1, 10, 14, 1, 8, center_grid=8),
]
SMALL = Case(1, 4, 6, 2, 24, region_grid=(1, 2))


@pytest.fixture(params=FORMS)
def form(request, monkeypatch):
    """Run what follows in one program a region, or with every region cut into chunks."""
    if request.param == 'chunks':
        monkeypatch.setattr(plan, 'WHOLE_POINTS', 0)
    return request.param


def inputs(case, dtype=torch.float32, seed=0):
    dim, values_dim = case.dims
    generator = torch.Generator().manual_seed(seed)
    points, values, upstream = (torch.randn(*case.size, d, generator=generator) for d in (dim, values_dim, values_dim))
    maps = [t.to(DEVICE, dtype) for t in (points, values)]
    return [*maps, torch.tensor([1.7], device=DEVICE), torch.tensor([-0.3], device=DEVICE)], upstream.to(DEVICE, dtype)


def run(tensors, upstream, case, impl='triton', denominator='similarity'):
    leaves = [t.detach().requires_grad_() for t in tensors]
    grids = dict(center_grid=case.center_grid, region_grid=case.region_grid)
    out = cluster(*leaves, **grids, denominator=denominator, impl=impl)
    return [out, *torch.autograd.grad(out, leaves, upstream)]


def run_exactly(tensors, upstream, case, **options):
    return run([t.double() for t in tensors], upstream.double(), case, impl='reference', **options)


def assert_equal_up_to_rounding(got, want, *, rtol=2e-6):
    """Within float32's rounding of the largest number in each tensor, or of one where all are small."""
    for g, w in zip(got, want, strict=True):
        assert g.shape == w.shape
        assert_close(g.double(), w, rtol=0, atol=rtol * max(1.0, float(w.abs().max())))


@pytest.mark.parametrize('denominator', ['similarity', 'count'])
@pytest.mark.parametrize('case', CASES, ids=str)
def test_equals_reference(form, case, denominator):
    tensors, upstream = inputs(case)
    got = run(tensors, upstream, case, denominator=denominator)
    assert_equal_up_to_rounding(got, run_exactly(tensors, upstream, case, denominator=denominator))


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
@pytest.mark.parametrize('case', CASES[:2], ids=str)
def test_half_precision_errs_at_most_twice_as_much_as_reference(form, dtype, case):
    tensors, upstream = inputs(case, dtype)
    want = run_exactly(tensors, upstream, case)
    got, reference = (run(tensors, upstream, case, impl=impl) for impl in ('triton', 'reference'))
    for g, near, exact, like in zip(got, reference, want, [tensors[1], *tensors], strict=True):
        assert g.dtype == like.dtype
        budget = 2 * (near.double() - exact).abs()
        # The sums over all points, in float32, are right to its rounding by luck.
        floor = 2e-6 * max(1.0, float(exact.abs().max()))
        assert (g.double() - exact).abs().max() <= budget.max() + floor
        assert (g.double() - exact).abs().mean() <= budget.mean() + floor


def test_ties_go_to_the_first_center(form):
    case = Case(1, 4, 6, 1, 3)
    (_, values, alpha, beta), upstream = inputs(case)
    points = torch.ones(1, 4, 6, 1, 3, device=DEVICE)
    # In float32 the sigmoid of all of them is one: z decides. Repeated windows tie as well.
    for shift in (0.0, 40.0):
        tensors = [points, values, alpha, beta + shift]
        assert_equal_up_to_rounding(run(tensors, upstream, case), run_exactly(tensors, upstream, case))
    for center_grid in (2, (8, 6)):
        state = operator.cluster(points, values, alpha, beta, *_grid(center_grid), 1, 1, False)[1]
        assert state.eq(0).all()


@pytest.mark.filterwarnings('ignore:invalid value:RuntimeWarning')
@pytest.mark.parametrize('value', [float('nan'), float('inf')])
def test_a_bad_point_spoils_its_group_alone(form, value, monkeypatch):
    if DEVICE == 'cpu':
        # Compiled, a maximum compares by > and passes NaN over; interpreted, numpy takes it for the largest.
        from triton.runtime.interpreter import ReduceOps

        monkeypatch.setattr(ReduceOps, 'min_max', lambda self, values, **_: self.generic_reduce(self.whole))
        applied = ReduceOps.apply_impl
        monkeypatch.setattr(ReduceOps, 'apply_impl', lambda self, v: setattr(self, 'whole', v) or applied(self, v))
    case = Case(2, 4, 6, 2, 3, center_grid=(3, 1), region_grid=(1, 2))
    tensors, upstream = inputs(case)
    tensors[0][1, 2, 4, 0, 1] = value
    got, want = run(tensors, upstream, case), run(tensors, upstream, case, impl='reference')
    spoiled = got[0].isnan()
    assert spoiled[1, :, 3:, 0].all() and spoiled.sum() == spoiled[1, :, 3:, 0].numel()
    # No center is taken that is not there.
    assert operator.cluster(*tensors, 3, 1, 1, 2, False)[1].max() < 3
    for g, w in zip(got, want, strict=True):
        assert_close(g, w, rtol=0, atol=4e-6 * max(1.0, float(w.nan_to_num(0, 0, 0).abs().max())), equal_nan=True)


def _grid(grid):
    return (grid, grid) if isinstance(grid, int) else grid


def test_repeated_windows_tie(form):
    case = Case(1, 2, 3, 2, 6, center_grid=(4, 6))
    (points, values, alpha, beta), _ = inputs(case)
    index = operator.cluster(points, values, alpha, beta, 4, 6, 1, 1, False)[1]
    want = assign(points, alpha, beta, center_grid=(4, 6), region_grid=1)
    assert torch.equal(index.long().reshape(1, 2, 2, 3).permute(0, 2, 3, 1), want)


def test_saturated_sigmoids_do_not_decide(form):
    case = Case(1, 6, 6, 1, 8, center_grid=3)
    (points, values, _, beta), upstream = inputs(case)
    for scale in (1e3, -1e3):
        tensors = [points, values, torch.full_like(beta, scale), beta]
        assert_equal_up_to_rounding(run(tensors, upstream, case), run_exactly(tensors, upstream, case), rtol=1e-4)
    tensors = [points, values, torch.full_like(beta, 0.5), torch.full_like(beta, 60.0)]
    assert_equal_up_to_rounding(run(tensors, upstream, case), run_exactly(tensors, upstream, case))


def test_zero_vectors(form):
    case = Case(1, 4, 6, 1, 8)
    tensors, upstream = inputs(case)
    tensors[0] *= (torch.arange(24, device=DEVICE) % 3 > 0).reshape(1, 4, 6, 1, 1)
    got, want = run(tensors, upstream, case), run_exactly(tensors, upstream, case)
    # The gradient of a zero vector is over 1e-12: compared on its own scale.
    zero = tensors[0].eq(0)
    assert_close(got[1][zero].double(), want[1][zero], rtol=1e-3, atol=1e6)
    got[1], want[1] = got[1].masked_fill(zero, 0), want[1].masked_fill(zero, 0)
    assert_equal_up_to_rounding(got, want)
    tensors[0].zero_()
    got, want = run(tensors, upstream, case), run_exactly(tensors, upstream, case)
    assert_equal_up_to_rounding([got[0], *got[2:]], [want[0], *want[2:]])
    assert got[1].isfinite().all()


def packed_run(packed, alpha, beta, upstream, case):
    leaves = [t.detach().requires_grad_() for t in (packed, alpha, beta)]
    out = operator.cluster_packed(*leaves, *_grid(case.center_grid), *_grid(case.region_grid), False)[0]
    return [out, *torch.autograd.grad(out, leaves, upstream)]


def test_packed_equals_separate(form):
    (points, values, alpha, beta), upstream = inputs(SMALL)
    packed = torch.stack([points, values], dim=3)
    out, grad, *scalars = packed_run(packed, alpha, beta, upstream, SMALL)
    want, grad_points, grad_values, *want_scalars = run([points, values, alpha, beta], upstream, SMALL)
    assert grad.is_contiguous() and torch.equal(out, want)
    assert torch.equal(grad, torch.stack([grad_points, grad_values], dim=3))
    assert all(torch.equal(g, w) for g, w in zip(scalars, want_scalars, strict=True))


def test_any_strides(form):
    tensors, upstream = inputs(SMALL)
    points, values = tensors[:2]
    want = run(tensors, upstream, SMALL)
    padded_points = torch.zeros(1, 5, 6, 4, 30, device=DEVICE)
    padded_values = torch.zeros(2, 4, 12, 2, 24, device=DEVICE)
    padded_points[:, 1:, :, ::2, 3:27], padded_values[::2, :, ::2] = points, values
    views = [
        (padded_points[:, 1:, :, ::2, 3:27], padded_values[::2, :, ::2], upstream),
        tuple(t.transpose(1, 2).contiguous().transpose(1, 2) for t in (points, values, upstream)),
        tuple(t.transpose(3, 4).contiguous().transpose(3, 4) for t in (points, values, upstream)),
    ]
    for *maps, gradient in views:
        assert not maps[0].is_contiguous()
        for g, w in zip(run([*maps, *tensors[2:]], gradient, SMALL), want, strict=True):
            assert torch.equal(g, w)


def test_an_expanded_gradient(form):
    tensors, _ = inputs(SMALL)
    leaves = [t.requires_grad_() for t in tensors]
    cluster(*leaves, center_grid=2, region_grid=(1, 2), impl='triton').sum().backward()
    got = [t.grad for t in leaves]
    assert_equal_up_to_rounding(got, run_exactly(tensors, torch.ones_like(tensors[1]), SMALL)[1:])


def test_an_empty_batch(form):
    case = Case(0, 4, 4, 2, 8, region_grid=2)
    tensors, upstream = inputs(case)
    out, *gradients = run(tensors, upstream, case)
    assert out.shape == upstream.shape
    assert [g.shape for g in gradients] == [t.shape for t in tensors]
    assert gradients[2].eq(0).all() and gradients[3].eq(0).all()


def test_the_same_bits_every_time(form):
    tensors, upstream = inputs(SMALL)
    for g, w in zip(run(tensors, upstream, SMALL), run(tensors, upstream, SMALL), strict=True):
        assert torch.equal(g, w)


def test_what_is_kept_is_small():
    kept = []
    (points, values, alpha, beta), _ = inputs(Case(1, 20, 16, 1, 32, center_grid=7))
    leaves = [t.requires_grad_() for t in (points, values, alpha, beta)]
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        cluster(*leaves, center_grid=7, region_grid=1, impl='triton')
    beside_inputs = sum(t.nbytes for t in kept) - points.nbytes - values.nbytes
    assert beside_inputs <= 320 * 5 + 49 * (32 + 32 + 2) * 4 + 8


class Mixer(nn.Module):
    def __init__(self, packed):
        super().__init__()
        self.packed = packed
        self.projection = nn.Linear(6, 2 * 2 * 8)
        self.alpha, self.beta = nn.Parameter(torch.ones(1)), nn.Parameter(torch.zeros(1))

    def forward(self, x):
        both = self.projection(x).unflatten(-1, (2, 2, 8))
        options = dict(center_grid=2, region_grid=1, denominator='similarity')
        if self.packed:
            return operator.cluster_packed(both, self.alpha, self.beta, 2, 2, 1, 1, False)[0]
        return cluster_triton(*both.unbind(dim=3), self.alpha, self.beta, **options)


@pytest.mark.parametrize('packed', [False, True])
def test_autocast_hands_half_precision_through(packed):
    torch.manual_seed(0)
    model, x = Mixer(packed).to(DEVICE), torch.randn(1, 4, 4, 6, device=DEVICE)
    with torch.autocast(DEVICE, dtype=torch.bfloat16):
        out = model(x)
        # Maps in float32 stay so.
        assert run(*inputs(SMALL), SMALL)[0].dtype == torch.float32
    assert out.dtype == torch.bfloat16
    out.float().square().sum().backward()
    assert all(p.grad.dtype == torch.float32 and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize('packed', [False, True])
def test_export_sees_one_operator(packed):
    model, x = Mixer(packed).to(DEVICE), torch.randn(2, 4, 4, 6, device=DEVICE)
    program = torch.export.export(model, (x,), dynamic_shapes=({0: torch.export.Dim('batch', min=1)},))
    nodes = [n for n in program.graph.nodes if n.op == 'call_function' and 'coc_core' in str(n.target)]
    name = 'coc_core.cluster_packed.default' if packed else 'coc_core.cluster.default'
    assert [str(n.target) for n in nodes] == [name]
    x = torch.randn(3, 4, 4, 6, device=DEVICE)
    assert torch.equal(program.module()(x), model(x))


@pytest.mark.parametrize('packed', [False, True])
def test_compile(packed):
    model, x = Mixer(packed).to(DEVICE), torch.randn(1, 4, 4, 6, device=DEVICE)
    compiled = torch.compile(model, backend='aot_eager', fullgraph=True)
    gradients = []
    for each in (model, compiled):
        model.zero_grad()
        out = each(x)
        out.square().sum().backward()
        gradients.append([out, *(p.grad for p in model.parameters())])
    for eager, graph in zip(*gradients, strict=True):
        assert_close(graph, eager, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize('packed', [False, True])
def test_the_registration_is_sound(form, packed):
    (points, values, alpha, beta), _ = inputs(Case(1, 4, 4, 1, 5))
    maps = [torch.stack([points, values], dim=3)] if packed else [points, values]
    tensors = [t.requires_grad_() for t in (*maps, alpha, beta)]
    torch.library.opcheck(operator.cluster_packed if packed else operator.cluster, (*tensors, 2, 2, 1, 1, True))


def test_offsets_beyond_int32():
    # The last column and the second image lie over 2^31 elements behind the first; what is not touched takes no memory.
    case = Case(2, 1, 6, 2, 16, center_grid=1, region_grid=(1, 3))
    (points, values, alpha, beta), upstream = inputs(case, torch.bfloat16)
    pitch = 2**29
    storage = torch.empty(12 * pitch, device=DEVICE, dtype=torch.bfloat16)
    far = storage.as_strided(points.shape, (6 * pitch, 6 * pitch, pitch, 16, 1)).copy_(points)
    got = run([far, values, alpha, beta], upstream, case)
    want = run([points, values, alpha, beta], upstream, case)
    assert all(torch.equal(g, w) for g, w in zip(got, want, strict=True))


def test_a_head_stride_beyond_int32():
    case = Case(1, 2, 2, 4, 16, center_grid=1)
    (points, values, alpha, beta), upstream = inputs(case, torch.bfloat16)
    storage = torch.empty(4 * (2**30 + 64), device=DEVICE, dtype=torch.bfloat16)
    far = storage.as_strided(points.shape, (64, 32, 16, 2**30 + 64, 1)).copy_(points)
    got = run([far, values, alpha, beta], upstream, case)
    want = run([points, values, alpha, beta], upstream, case)
    assert all(torch.equal(g, w) for g, w in zip(got, want, strict=True))


@pytest.mark.parametrize(('size', 'pitch'), [((2, 2), 2**30), ((1024, 1025), 4)])
def test_a_region_beyond_int32_is_refused(size, pitch):
    points = torch.empty_strided(
        (1, *size, 1, 4), (size[0] * size[1] * pitch, size[1] * pitch, pitch, 4, 1), device='meta'
    )
    problem = launch.problem_of(points, points, (1, 1), (1, 1), False)
    with pytest.raises(ValueError, match=r'has over a million, or spans over 2\^31 elements'):
        launch.forward((points, points, torch.ones(1), torch.ones(1)), problem)


@pytest.mark.parametrize(
    ('change', 'sentence'),
    [
        (
            {'points': torch.zeros(1, 4, 4, 1, 8).double(), 'values': torch.zeros(1, 4, 4, 1, 8).double()},
            "impl='triton' takes float32, bfloat16, float16, not float64: choose impl='auto', or 'plain'",
        ),
        ({'values': torch.zeros(1, 4, 4, 1, 8).double()}, 'points are torch.float32 and values torch.float64'),
        ({'values': torch.zeros(1, 4, 4, 1, 257)}, 'takes heads of at most 256 channels, not 257'),
        ({'center_grid': (5, 13)}, 'takes at most 64 centers in a region, not 65'),
        ({'center_grid': 8, 'values': torch.zeros(1, 4, 4, 1, 65)}, 'takes at most 4096 channels of all centers'),
        ({'region_grid': 3}, '4x4 points does not divide into 3x3 regions'),
        ({'values': torch.zeros(1, 4, 5, 1, 8)}, 'must be maps of the same size'),
        ({'denominator': 'sum'}, "denominator='sum' is unknown"),
    ],
)
def test_bad_arguments_are_named(change, sentence):
    arguments = {'points': torch.zeros(1, 4, 4, 1, 8), 'values': torch.zeros(1, 4, 4, 1, 8)}
    arguments |= {'alpha': torch.ones(1), 'beta': torch.zeros(1), 'center_grid': 2, 'region_grid': 2}
    arguments |= {'denominator': 'similarity'} | change
    arguments = {k: v.to(DEVICE) if isinstance(v, torch.Tensor) else v for k, v in arguments.items()}
    positional = [arguments.pop(k) for k in ('points', 'values', 'alpha', 'beta')]
    with pytest.raises(ValueError, match=sentence):
        cluster(*positional, **arguments, impl='triton')


@pytest.mark.parametrize(
    ('before', 'sentence'),
    [
        (
            "sys.modules['triton'] = None; u.find_spec = lambda *a: a[0] != 'triton' and find(*a) or None",
            'not installed',
        ),
        ("os.environ['TRITON_INTERPRET'] = '0'", "needs a CUDA device, not cpu: choose impl='auto'"),
    ],
)
def test_without_triton_or_gpu_all_else_works(before, sentence):
    code = f"""
import os, sys, importlib.util as u, torch
find = u.find_spec
{before}
from coc_core.ops import cluster
x, one = torch.randn(1, 4, 4, 1, 8), torch.ones(1)
cluster(x, x, one, one, center_grid=2, region_grid=1)
try:
    cluster(x, x, one, one, center_grid=2, region_grid=1, impl='triton')
except ValueError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert sentence in done.stdout, done.stderr
