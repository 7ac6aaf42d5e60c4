"""The point-cloud models equal the published ones, and their fast layers the reference ones, gradients included."""

import copy

import pytest
import torch
from torch.testing import assert_close

import pointcloud
from coc_core import ops
from coc_core.checkpoints import from_official
from pointcloud import create_model, layers, norm
from pointcloud.models import PointMLP
from pointcloud.reference import pointmlp_reference

SMALL = dict(embed_dim=8, anchors=(20, 11), dim_factors=2, pre_blocks=(1, 2), post_blocks=1, neighbors=7)


def small(**options):
    torch.manual_seed(0)
    model = PointMLP('pointmlp_coc', **{**SMALL, **options}).double()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return model


@pytest.mark.parametrize('prefix', ['', 'module.'])
@pytest.mark.parametrize('name', pointcloud.VARIANTS)
def test_published_weights_give_published_logits(golden, name, prefix):
    case = golden(f'points_{name}')
    model = pointcloud.create_model(name).double().eval()
    published = {prefix + key: value for key, value in case.published_state_dict(name).items()}
    model.load_state_dict(from_official(published))
    assert sum(p.numel() for p in model.parameters()) == case.case['parameters']
    with torch.no_grad():
        assert_close(model(case.points()), case.expected['logits'], rtol=0, atol=1e-10)


def test_state_dict_of_another_model_is_refused(golden):
    published = golden('points_pointmlp').published_state_dict('pointmlp')
    with pytest.raises(ValueError, match=r"'classifer\.0\.weight' is not a key of a published point-cloud model"):
        from_official({**published, 'classifer.0.weight': torch.zeros(1)})


@pytest.mark.parametrize('training', [True, False])
@pytest.mark.parametrize('options', [{}, {'clustering': False}, {'residual_expansion': 0.25}], ids=str)
def test_fast_equals_reference_with_every_gradient(options, training):
    model = small(**options).train(training)
    points = torch.randn(3, 37, 3, dtype=torch.float64)
    weights = torch.randn(3, 32, dtype=torch.float64)
    results = []
    for forward in (model, lambda x: pointmlp_reference(model, x)):
        x = points.clone().requires_grad_()
        output = forward(x)
        results.append((output, *torch.autograd.grad((output * weights).sum(), [x, *model.parameters()])))
    for fast, reference in zip(*results, strict=True):
        assert_close(fast, reference, rtol=1e-9, atol=1e-9)


def test_running_statistics_equal_the_reference_ones():
    fast, reference = small().train(), small().train()
    points = torch.randn(3, 37, 3, dtype=torch.float64)
    # Backward computes norms again, which must not count twice.
    fast(points).sum().backward()
    pointmlp_reference(reference, points).sum().backward()
    for (name, ours), theirs in zip(fast.named_buffers(), reference.buffers(), strict=True):
        assert_close(ours, theirs, msg=name)


def test_float32_stays_near_float64_far_from_the_origin():
    """Differences come first: an offset of the cloud must not eat the digits of a group."""
    model = small().eval()
    points = torch.randn(2, 64, 3, dtype=torch.float64) + 10
    expected = pointmlp_reference(model, points)
    assert_close(model.float()(points.float()).double(), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64], ids=str)
def test_a_cloud_of_one_place_trains_without_nan(dtype):
    model = small().to(dtype).train()
    model(torch.ones(2, 37, 3, dtype=dtype)).sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


def error_of(found, expected):
    return ((found.double() - expected).abs().max() / expected.abs().max()).item()


def repeated(distinct, points=1024):
    """Clouds of a few places, filled up by repetition."""
    return torch.randn(4, distinct, 3)[:, torch.arange(points) % distinct]


@pytest.mark.parametrize('training', [True, False])
@pytest.mark.parametrize('distinct', [1, 2, 40, 100, 1024])
def test_float32_is_as_accurate_as_the_reference_form_however_few_points_are_distinct(distinct, training):
    torch.manual_seed(0)
    model = create_model('pointmlp_elite').train(training).backbone
    points = repeated(distinct)
    with torch.no_grad():
        exact = pointmlp_reference(copy.deepcopy(model).double(), points.double())
        reference = error_of(pointmlp_reference(copy.deepcopy(model), points), exact)
        assert error_of(model(points), exact) <= 3 * reference


def test_statistics_of_a_batch_are_rounded_once():
    rows = torch.randn(7, 5)[torch.arange(7 * 1009) % 7] + 3
    mean, variance = norm.batch_statistics(rows)
    exact_variance, exact_mean = torch.var_mean(rows.double(), dim=0, correction=0)
    assert_close(mean.double(), exact_mean, rtol=2e-7, atol=0)
    assert_close(variance.double(), exact_variance, rtol=5e-7, atol=0)


@pytest.mark.parametrize('rows', [1, 2, 13, 48])
def test_norm_equals_batch_norm_with_gradients_and_running_statistics(rows):
    ours, theirs = norm.PointNorm(5).train(), torch.nn.BatchNorm1d(5).train()
    x = torch.randn(3 * rows, 5, requires_grad=True)
    found, expected = ours(x), theirs(x)
    assert_close(found, expected)
    weights = torch.randn_like(found)
    for (name, left), right in zip(ours.named_buffers(), theirs.buffers(), strict=True):
        assert_close(left, right, msg=name)
    gradients = [
        torch.autograd.grad((out * weights).sum(), [x, *layer.parameters()])
        for out, layer in ((found, ours), (expected, theirs))
    ]
    for left, right in zip(*gradients, strict=True):
        assert_close(left, right, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64], ids=str)
def test_gradients_are_not_copied_for_what_is_overwritten(dtype):
    nodes, seen = [small().to(dtype).train()(torch.randn(2, 64, 3, dtype=dtype)).grad_fn], set()
    while nodes:
        node = nodes.pop()
        if node not in seen:
            seen.add(node)
            nodes += [parent for parent, _ in node.next_functions if parent]
    # What autograd makes of an operation that overwrites a view.
    assert not [node.name() for node in seen if node.name().startswith(('CopySlices', 'AsStrided'))]


def test_the_mixer_is_the_operator_of_the_backbone():
    block = layers.ClusterBlock(12).double()
    torch.nn.init.normal_(block.sim_alpha)
    torch.nn.init.normal_(block.sim_beta)
    x = torch.randn(2, 3, 7, 12, dtype=torch.float64)
    maps = x.flatten(0, 1)[:, :, None, None]
    mixed = ops.cluster(
        block.points(maps), block.values(maps), block.sim_alpha, block.sim_beta, center_grid=1, region_grid=1
    )
    assert_close(block(x), x + block.proj(mixed).view_as(x))


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize('autocast', [True, False])
def test_half_precision_stays_near_float32(dtype, autocast):
    model = small().float().eval()
    points = torch.randn(2, 64, 3)
    expected = model(points)
    with torch.autocast('cpu', dtype, enabled=autocast):
        found = model(points) if autocast else model.to(dtype)(points.to(dtype))
    assert torch.nn.functional.cosine_similarity(found.float(), expected).min() > 0.9


def test_smoothed_target_is_the_published_one():
    head = pointcloud.create_model('pointmlp_elite', num_classes=5).head.eval()
    features, labels = torch.randn(4, 256), torch.tensor([0, 3, 3, 4])
    target = torch.full((4, 5), 0.2 / 4).scatter(1, labels[:, None], 0.8)
    expected = -(target * head(features).log_softmax(dim=1)).sum(dim=1).mean()
    assert_close(head.loss(features, labels)['loss'], expected)


@pytest.mark.parametrize(
    ('call', 'message'),
    [
        (lambda: create_model('pointmlp_cok'), "Unknown variant 'pointmlp_cok'. Did you mean 'pointmlp_coc'"),
        (lambda: create_model('pointmlp', neighbours=3), "no field 'neighbours'. Did you mean 'neighbors'"),
        (lambda: create_model('pointmlp', anchors=(96, 64, 64, 9), neighbors=65), 'neighbors=65 are more points'),
        (
            lambda: create_model('pointmlp', anchors=(64, 64, 64, 0)),
            r'anchors=\(64, 64, 64, 0\) must hold a positive integer',
        ),
        (lambda: create_model('pointmlp', num_classes=1), 'num_classes=1 must be at least 2'),
        (lambda: create_model('pointmlp_elite')(torch.zeros(1, 23, 3)), 'group of 24 points'),
        (lambda: create_model('pointmlp_elite')(torch.zeros(1, 3, 64)), r'must be \[B, N, 3\]'),
    ],
)
def test_impossible_models_and_inputs_are_refused_in_one_sentence(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_mixer_is_no_argument_and_not_asked_for():
    with pytest.raises(ValueError, match=r"PointMLPConfig has no field 'mixer'\. Fields: "):
        create_model('pointmlp_coc', mixer=None)
