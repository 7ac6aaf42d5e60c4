"""The fast operator equals the reference one, outputs and every gradient."""

from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from coc_core.ops import assign, cluster, implementations
from coc_core.ops.cpu.slabs import spare_channels
from coc_core.ops.regions import pooling_windows

# Of 'triton', which has no float64, the tests are in test_triton.py.
IMPLEMENTATIONS = [name for name in implementations() if name != 'triton']
FAST = [name for name in IMPLEMENTATIONS if name != 'reference']


class Case(NamedTuple):
    """Maps of points and values, and how they are clustered."""

    batch: int
    height: int
    width: int
    heads: int
    dim: int
    center_grid: int | tuple[int, int] = 2
    region_grid: int | tuple[int, int] = 1

    @property
    def shape(self):
        return self.batch, self.height, self.width, self.heads, self.dim

    def __str__(self):
        return f'{"x".join(map(str, self.shape))}, centers {self.center_grid}, regions {self.region_grid}'


STANDARD = Case(2, 8, 12, 2, 24, region_grid=2)
CASES = [
    STANDARD,
    Case(1, 9, 7, 3, 5, center_grid=5),
    Case(2, 10, 14, 1, 8, center_grid=7, region_grid=2),
    Case(1, 3, 5, 2, 16, center_grid=(2, 4), region_grid=(3, 5)),
    Case(1, 1, 1, 2, 4),
    Case(2, 13, 1, 1, 32, center_grid=1),
    Case(1, 6, 10, 2, 7, center_grid=(3, 1), region_grid=(2, 5)),
    # Groups that have spare channels on a CPU.
    Case(2, 4, 6, 2, 24, region_grid=(2, 3)),
]


def inputs(case, dtype=torch.float64):
    generator = torch.Generator().manual_seed(hash(case) % 1000)
    points, values, upstream = torch.randn(3, *case.shape, generator=generator, dtype=dtype)
    alpha, beta = torch.tensor([1.7], dtype=dtype), torch.tensor([-0.3], dtype=dtype)
    return [t.requires_grad_() for t in (points, values, alpha, beta)], upstream


def run(tensors, upstream, case, **options):
    leaves = [t.detach().requires_grad_() for t in tensors]
    out = cluster(*leaves, center_grid=case.center_grid, region_grid=case.region_grid, **options)
    out.backward(upstream)
    return [out, *(leaf.grad for leaf in leaves)]


@pytest.mark.parametrize('impl', FAST)
@pytest.mark.parametrize('denominator', ['similarity', 'count'])
@pytest.mark.parametrize('case', CASES, ids=str)
def test_fast_equals_plain_and_reference(impl, denominator, case):
    tensors, upstream = inputs(case)
    got = run(tensors, upstream, case, impl=impl, denominator=denominator)
    for truth in {'plain', 'reference'} - {impl}:
        want = run(tensors, upstream, case, impl=truth, denominator=denominator)
        for g, w in zip(got, want, strict=True):
            assert_close(g, w, rtol=1e-10, atol=1e-12)


def test_small_groups_have_spare_channels_where_few_make_their_products_fast():
    # Four centers and four points: 384 multiplications with 24 channels, 400 with 25.
    assert [spare_channels(4 * 4, dim) for dim in (12, 13, 24, 25, 32)] == [0, 12, 1, 0, 0]
    assert spare_channels(0, 8) == 0


@pytest.mark.parametrize('size', [(1, 1), (3, 5), (8, 2), (7, 7)], ids=str)
@pytest.mark.parametrize('center_grid', [1, 2, (4, 3), 7], ids=str)
def test_windows_are_those_of_adaptive_pooling(size, center_grid):
    points = torch.randn(2, 3, *size, dtype=torch.float64)
    centers = points.flatten(2) @ pooling_windows(size, center_grid, points.dtype, points.device).T
    assert_close(centers, F.adaptive_avg_pool2d(points, center_grid).flatten(2))


@pytest.mark.parametrize('impl', IMPLEMENTATIONS)
def test_gradient_is_the_derivative(impl):
    case = Case(1, 4, 6, 2, 3, region_grid=2)
    tensors, _ = inputs(case)
    grids = dict(center_grid=case.center_grid, region_grid=case.region_grid)
    assert torch.autograd.gradcheck(lambda *t: cluster(*t, **grids, impl=impl), tensors)


@pytest.mark.parametrize('impl', IMPLEMENTATIONS)
def test_one_cluster_by_hand(impl):
    # Two equal points and one center: cos = 1, so s = sigmoid(alpha + beta) for both.
    points = torch.tensor([[1.0, 0.0], [1.0, 0.0]]).reshape(1, 2, 1, 1, 2)
    values = torch.tensor([[2.0, 4.0], [6.0, 8.0]]).reshape(1, 2, 1, 1, 2)
    alpha, beta = torch.tensor([1.0]), torch.tensor([0.5])
    s = torch.sigmoid(torch.tensor(1.5))
    for denominator, total in (('similarity', 2 * s), ('count', torch.tensor(2.0))):
        center = (torch.tensor([4.0, 6.0]) + s * torch.tensor([8.0, 12.0])) / (1 + total)
        out = cluster(points, values, alpha, beta, center_grid=1, region_grid=1, denominator=denominator, impl=impl)
        assert_close(out, (s * center).expand(1, 2, 1, 1, 2))


@pytest.mark.parametrize('impl', IMPLEMENTATIONS)
def test_ties_go_to_the_first_center(impl):
    # All points alike: every center ties, so the first takes all and holds the mean of window 0.
    points = torch.ones(1, 4, 4, 1, 3, dtype=torch.float64)
    values = torch.arange(48.0, dtype=torch.float64).reshape(1, 4, 4, 1, 3)
    alpha, beta = torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    assert assign(points, alpha, beta, center_grid=2, region_grid=1).eq(0).all()
    s = torch.sigmoid(torch.tensor(1.0, dtype=torch.float64))
    center = (values[:, :2, :2].mean((0, 1, 2, 3)) + s * values.sum((0, 1, 2, 3))) / (1 + 16 * s)
    out = cluster(points, values, alpha, beta, center_grid=2, region_grid=1, impl=impl)
    assert_close(out, (s * center).expand_as(out))


@pytest.mark.parametrize('impl', IMPLEMENTATIONS)
def test_zero_vectors_and_saturated_sigmoids_stay_finite(impl):
    case = Case(1, 4, 4, 1, 8)
    (points, values, _, beta), upstream = inputs(case)
    points = points.detach() * (torch.rand(1, 4, 4, 1, 1) > 0.5)
    for alpha in (1e4, -1e4):
        tensors = points, values, torch.tensor([alpha], dtype=torch.float64), beta
        assert all(t.isfinite().all() for t in run(tensors, upstream, case, impl=impl))


@pytest.mark.parametrize('impl', FAST)
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype, impl):
    tensors, upstream = inputs(STANDARD)
    halves = [t.detach().to(dtype) for t in tensors]
    got = run(halves, upstream.to(dtype), STANDARD, impl=impl)
    want = run([t.double() for t in halves], upstream.to(dtype).double(), STANDARD, impl='reference')
    for g, w in zip(got[:3], want[:3], strict=True):
        assert g.dtype == dtype
        assert_close(g.double(), w, rtol=2 * torch.finfo(dtype).eps, atol=1e-4)


@pytest.mark.parametrize('impl', FAST)
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
@pytest.mark.parametrize('case', CASES, ids=str)
def test_half_precision_errs_at_most_twice_as_much_as_the_reference_operator(case, dtype, impl):
    tensors, upstream = inputs(case)
    halves, upstream = [t.detach().to(dtype) for t in tensors], upstream.to(dtype)
    exact = run([t.double() for t in halves], upstream.double(), case, impl='reference')
    got, reference = (run(halves, upstream, case, impl=name) for name in (impl, 'reference'))
    for g, near, want in zip(got, reference, exact, strict=True):
        budget = 2 * (near.double() - want).norm() + torch.finfo(dtype).eps * 1e-2 * want.norm()
        assert (g.double() - want).norm() <= budget


@pytest.mark.parametrize('impl', FAST)
def test_any_strides(impl):
    tensors, upstream = inputs(STANDARD)
    fused = torch.stack(tensors[:2], dim=3).detach()
    views = [*fused.unbind(dim=3), *tensors[2:]]
    expected = run(tensors, upstream, STANDARD, impl=impl)
    for got, want in zip(run(views, upstream, STANDARD, impl=impl), expected, strict=True):
        assert torch.equal(got, want)


def test_assign_is_the_nearest_center_of_the_region():
    points, alpha, beta = torch.randn(2, 6, 4, 3, 5), torch.ones(1), torch.zeros(1)
    got = assign(points, alpha, beta, center_grid=(3, 2), region_grid=(2, 1))
    assert got.shape == (2, 6, 4, 3) and got.dtype == torch.int64
    region = points[1, 3:, :, 2]  # rows 3..5 are the second region
    centers = F.adaptive_avg_pool2d(region.permute(2, 0, 1), (3, 2)).flatten(1).T
    cosine = F.normalize(region, dim=-1) @ F.normalize(centers, dim=-1).T
    assert torch.equal(got[1, 3:, :, 2], cosine.argmax(-1))


@pytest.mark.parametrize(
    ('change', 'sentence'),
    [
        ({'region_grid': 3}, '8x12 points does not divide into 3x3 regions'),
        ({'center_grid': 0}, 'center_grid=0 must be a positive integer'),
        ({'center_grid': (1, 2, 3)}, r'center_grid=\(1, 2, 3\) must be'),
        ({'denominator': 'sum'}, "denominator='sum' is unknown: choose one of similarity, count"),
        ({'impl': 'fast'}, "impl='fast' is unknown: choose one of auto, triton, cpu, plain, reference"),
        ({'points': torch.zeros(1, 8, 12, 2)}, 'must be maps of the same size'),
        ({'points': torch.zeros(8, 12), 'values': torch.zeros(8, 12)}, r'points must be \[B, H, W, heads, D\]'),
    ],
)
def test_bad_arguments_are_named(change, sentence):
    arguments = {'points': torch.zeros(1, 8, 12, 2, 4), 'values': torch.zeros(1, 8, 12, 2, 4)}
    arguments |= {'alpha': torch.ones(1), 'beta': torch.zeros(1), 'center_grid': 2, 'region_grid': 2} | change
    points, values, alpha, beta = (arguments.pop(k) for k in ('points', 'values', 'alpha', 'beta'))
    with pytest.raises(ValueError, match=sentence):
        cluster(points, values, alpha, beta, **arguments)
