"""Mistakes in steps of the user's own: each is one sentence, and what fused code does not know runs plain."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from coc_core import CoCConfig, ContextCluster
from coc_core.errors import UserError
from coc_core.layers import ClusterMixer, MapNorm
from coc_core.visualization import ClusterRecorder

TOY = CoCConfig(
    depths=1, dims=8, mlp_ratios=2, heads=2, head_dim=4, center_grid=2, region_grid=2, layer_scale_init=0.5
)  # fmt: skip
IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def mixer_with(**methods):
    return type('Mine', (ClusterMixer,), methods)


@pytest.mark.parametrize(
    ('step', 'method', 'sentence'),
    [
        # It broadcast: each group was mixed with all others of the batch, without a word.
        ('pool', lambda self, x, size: x.mean(1), r'Mine.pool returned \[16, 4\]: it returns \[G, M, D\]\.'),
        ('similarity', lambda self, p, c: p @ c.mT, r'Mine.similarity returned \[16, 16, 4\]: .* G=16, M=4, N=16'),
        ('assign', lambda self, z: z.softmax(1).amax(1, keepdim=True), r'Mine.assign returned \[16, 1, 16\]: .* M=4'),
        ('assign', lambda self, z: None, r'Mine.assign returned NoneType: it returns a tensor \[G, M, N\]'),
        ('aggregate', lambda self, s, m, v, c: c.mean(1, keepdim=True), r'Mine.aggregate returned \[16, 1, 4\]'),
        ('dispatch', lambda self, s, held: held, r'Mine.dispatch returned \[16, 4, 4\]: it returns .* G=16, N=16'),
        ('assign', lambda self, z: z.double(), 'Mine.assign returned torch.float64 for torch.float32, in which'),
        ('forward', lambda self, x, scale=None: None, 'Mine returned NoneType: a mixer returns a map like the one'),
        ('forward', lambda self, x, scale=None: x.double(), 'Mine returned torch.float64 for a map of torch.float32'),
        ('forward', lambda self, x, scale=None: x.long(), 'Mine returned torch.int64 for a map of torch.float32'),
    ],
)
def test_what_a_step_must_not_return_is_one_sentence(step, method, sentence):
    model = ContextCluster(TOY, mixer=mixer_with(**{step: method}))
    with pytest.raises(UserError, match=sentence):
        model(IMAGES)


@pytest.mark.parametrize(
    'method',
    [
        ('pool', lambda self, x, size: torch.eye(4)[None]),
        ('pool', lambda self, x, size: x[:, :7]),
        ('assign', lambda self, z: z == z.amax(1, keepdim=True)),
        ('assign', staticmethod(lambda z: z.softmax(1))),
    ],
)
def test_what_a_step_may_return(method):
    model = ContextCluster(TOY, num_classes=3, mixer=mixer_with(**dict([method])))
    model(IMAGES).sum().backward()
    with torch.autocast('cpu', dtype=torch.bfloat16):
        model(IMAGES)


@pytest.mark.parametrize('name', ['similarty', 'assing', 'aggregrate', 'dispach'])
def test_a_misspelled_step_is_refused(name):
    with pytest.raises(UserError, match=f'Mine.{name} is no step, and nothing would call it: call it [a-z]+, or _'):
        mixer_with(**{name: lambda self, *inputs: None})


def test_a_method_beside_the_step_of_its_kind_is_no_slip():
    def assign(self, z_GMN):
        return self.assigns(z_GMN)

    ContextCluster(TOY, mixer=mixer_with(assign=assign, assigns=lambda self, z: z.softmax(1)))(IMAGES)
    mixer_with(similarities=lambda self: None, projection=lambda self: None, _assing=lambda self: None)


def test_a_step_of_other_arguments_is_refused():
    with pytest.raises(UserError, match=r'Mine.similarity must take \(self, points_GND, centers_GMD\): too many posit'):
        mixer_with(similarity=lambda self, points: points)
    with pytest.raises(UserError, match=r'Mine.project_back must take \(self, mixed, scale\): too many'):
        mixer_with(project_back=lambda self, mixed: mixed)


class PerCenter(ClusterMixer):
    """A scale for each center, which the stock similarity broadcasts and fused code does not know."""

    def __init__(self, **numbers):
        super().__init__(**numbers)
        self.sim_alpha = nn.Parameter(torch.linspace(-2, 2, 4)[:, None])


class Number(ClusterMixer):
    def __init__(self, **numbers):
        super().__init__(**numbers)
        del self.sim_beta
        self.sim_beta = 0.5


@pytest.mark.parametrize(('mixer', 'name'), [(PerCenter, 'sim_alpha'), (Number, 'sim_beta')])
def test_scalars_that_are_none_run_plain(mixer, name):
    model, plain = (ContextCluster(TOY.override(impl=impl), num_classes=3, mixer=mixer) for impl in ('auto', 'plain'))
    plain.load_state_dict(model.state_dict())
    assert f'plain: {name} is no tensor of one element' in repr(model)
    assert_close(model(IMAGES), plain(IMAGES))
    with ClusterRecorder(model) as recorder:
        model(IMAGES)
    assert recorder.clusters()[0].alpha == (None if mixer is PerCenter else 1)


def test_groups_of_a_norm_take_effect():
    norm, x = MapNorm(8), torch.randn(2, 3, 5, 8)
    norm.num_groups = 4
    assert_close(norm(x), norm.forward_plain(x))
    assert 'plain: it has 4 groups' in repr(norm)


def test_an_unknown_denominator_is_refused_when_it_is_set():
    with pytest.raises(UserError, match="denominator='mean' is unknown"):
        ClusterMixer(8, 2, 4, center_grid=2, region_grid=1).denominator = 'mean'


class Rectangular(ClusterMixer):
    def __init__(self, **numbers):
        super().__init__(**numbers)
        self.center_grid = (2, 3)


def test_rows_and_columns_of_centers():
    model, plain = (
        ContextCluster(TOY.override(impl=impl), num_classes=3, mixer=Rectangular) for impl in ('auto', 'plain')
    )
    plain.load_state_dict(model.state_dict())
    with ClusterRecorder(model, similarities=True) as recorder:
        assert_close(model(IMAGES), plain(IMAGES))
    assert recorder.clusters()[0].centers == 6 == recorder.clusters()[0].similarity.shape[-1]


def rolled(self, x, scale=None):
    return ClusterMixer.forward(self, x.roll(1, 1), scale).roll(-1, 1)


def test_pictures_are_not_of_the_stock_way_where_a_layer_goes_another():
    model = ContextCluster(TOY, num_classes=0, mixer=mixer_with(forward=rolled))
    with pytest.raises(UserError, match='Mine, overrides forward, and the stock method `clusters` may not show what'):
        ClusterRecorder(model)
    for own in (ClusterMixer.clusters, lambda self, x: ClusterMixer.clusters(self, x)):
        model = ContextCluster(TOY, num_classes=0, mixer=mixer_with(forward=rolled, clusters=own))
        with ClusterRecorder(model) as recorder:
            model(IMAGES)
        assert recorder.clusters()


def test_a_method_clusters_that_returns_something_else_is_refused():
    model = ContextCluster(TOY, num_classes=0, mixer=mixer_with(clusters=lambda self, x: x.argmax(-1)))
    with ClusterRecorder(model), pytest.raises(UserError, match='Mine.clusters returned Tensor: it returns `Clusters`'):
        model(IMAGES)
