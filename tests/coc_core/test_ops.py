"""The fast operator equals the literal one, outputs and every gradient."""

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from coc_core.ops import assign, cluster, implementations
from coc_core.ops.regions import pooling_windows

# Of 'triton', which has no float64, the tests are in test_triton.py.
IMPLEMENTATIONS = [name for name in implementations() if name != 'triton']
FAST = [name for name in IMPLEMENTATIONS if name != 'reference']
SHAPES = [  # batch, height, width, heads, dim, center grid, region grid
    (2, 8, 12, 2, 24, 2, 2),
    (1, 9, 7, 3, 5, 5, 1),
    (2, 10, 14, 1, 8, 7, 2),
    (1, 3, 5, 2, 16, (2, 4), (3, 5)),
    (1, 1, 1, 2, 4, 2, 1),
    (2, 13, 1, 1, 32, 1, 1),
    (1, 6, 10, 2, 7, (3, 1), (2, 5)),
]


def inputs(shape, dtype=torch.float64):
    batch, height, width, heads, dim, _, _ = shape
    generator = torch.Generator().manual_seed(hash(shape) % 1000)
    points, values, upstream = torch.randn(3, batch, height, width, heads, dim, generator=generator, dtype=dtype)
    alpha, beta = torch.tensor([1.7], dtype=dtype), torch.tensor([-0.3], dtype=dtype)
    return [t.requires_grad_() for t in (points, values, alpha, beta)], upstream


def run(tensors, upstream, shape, **options):
    leaves = [t.detach().requires_grad_() for t in tensors]
    out = cluster(*leaves, center_grid=shape[5], region_grid=shape[6], **options)
    out.backward(upstream)
    return [out, *(leaf.grad for leaf in leaves)]


@pytest.mark.parametrize('impl', FAST)
@pytest.mark.parametrize('denominator', ['similarity', 'count'])
@pytest.mark.parametrize('shape', SHAPES, ids=str)
def test_fast_equals_plain_and_literal(impl, denominator, shape):
    tensors, upstream = inputs(shape)
    got = run(tensors, upstream, shape, impl=impl, denominator=denominator)
    for truth in {'plain', 'reference'} - {impl}:
        want = run(tensors, upstream, shape, impl=truth, denominator=denominator)
        for g, w in zip(got, want, strict=True):
            assert_close(g, w, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize('size', [(1, 1), (3, 5), (8, 2), (7, 7)], ids=str)
@pytest.mark.parametrize('center_grid', [1, 2, (4, 3), 7], ids=str)
def test_windows_are_those_of_adaptive_pooling(size, center_grid):
    points = torch.randn(2, 3, *size, dtype=torch.float64)
    centers = points.flatten(2) @ pooling_windows(size, center_grid, points.dtype, points.device).T
    assert_close(centers, F.adaptive_avg_pool2d(points, center_grid).flatten(2))


@pytest.mark.parametrize('impl', IMPLEMENTATIONS)
def test_gradient_is_the_derivative(impl):
    shape = (1, 4, 6, 2, 3, 2, 2)
    tensors, _ = inputs(shape)
    assert torch.autograd.gradcheck(lambda *t: cluster(*t, center_grid=2, region_grid=2, impl=impl), tensors)


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
    (points, values, _, beta), upstream = inputs((1, 4, 4, 1, 8, 2, 1))
    points = points.detach() * (torch.rand(1, 4, 4, 1, 1) > 0.5)
    for alpha in (1e4, -1e4):
        tensors = points, values, torch.tensor([alpha], dtype=torch.float64), beta
        assert all(t.isfinite().all() for t in run(tensors, upstream, (1, 4, 4, 1, 8, 2, 1), impl=impl))


@pytest.mark.parametrize('impl', FAST)
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype, impl):
    shape = (2, 8, 12, 2, 24, 2, 2)
    tensors, upstream = inputs(shape)
    halves = [t.detach().to(dtype) for t in tensors]
    got = run(halves, upstream.to(dtype), shape, impl=impl)
    want = run([t.double() for t in halves], upstream.to(dtype).double(), shape, impl='reference')
    for g, w in zip(got[:3], want[:3], strict=True):
        assert g.dtype == dtype
        assert_close(g.double(), w, rtol=2 * torch.finfo(dtype).eps, atol=1e-4)


@pytest.mark.parametrize('impl', FAST)
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
@pytest.mark.parametrize('shape', SHAPES, ids=str)
def test_half_precision_errs_at_most_twice_as_much_as_the_literal_operator(shape, dtype, impl):
    tensors, upstream = inputs(shape)
    halves, upstream = [t.detach().to(dtype) for t in tensors], upstream.to(dtype)
    exact = run([t.double() for t in halves], upstream.double(), shape, impl='reference')
    got, literal = (run(halves, upstream, shape, impl=name) for name in (impl, 'reference'))
    for g, near, want in zip(got, literal, exact, strict=True):
        budget = 2 * (near.double() - want).norm() + torch.finfo(dtype).eps * 1e-2 * want.norm()
        assert (g.double() - want).norm() <= budget


@pytest.mark.parametrize('impl', FAST)
def test_any_strides(impl):
    shape = (2, 8, 12, 2, 24, 2, 2)
    tensors, upstream = inputs(shape)
    fused = torch.stack(tensors[:2], dim=3).detach()
    views = [*fused.unbind(dim=3), *tensors[2:]]
    for got, want in zip(run(views, upstream, shape, impl=impl), run(tensors, upstream, shape, impl=impl), strict=True):
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
