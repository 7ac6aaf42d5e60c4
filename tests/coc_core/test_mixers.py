"""The seam for a new idea: one class of the user's takes effect everywhere, or is refused in a sentence."""

from functools import partial

import pytest
import timm
import torch
from torch import nn
from torch.testing import assert_close

from coc_core import CoCConfig, ContextCluster, checkpoints, create_model, ops
from coc_core.checkpoints import CheckpointError
from coc_core.layers import STEPS, ClusterMixer
from coc_core.reference import classify_reference
from coc_core.visualization import ClusterRecorder

TOY = CoCConfig(
    depths=(1, 1),
    dims=(8, 12),
    mlp_ratios=2,
    heads=2,
    head_dim=4,
    center_grid=2,
    region_grid=(2, 1),
    layer_scale_init=0.5,
)


class Temperature(ClusterMixer):
    def __init__(self, *args, temperature=1.0, **kwargs):
        super().__init__(*args, **kwargs)
        self.temperature = nn.Parameter(torch.full((1,), float(temperature)))

    def similarity(self, points_GND, centers_GMD):
        return super().similarity(points_GND, centers_GMD) / self.temperature


class Soft(ClusterMixer):
    def assign(self, z_GMN):
        return z_GMN.softmax(dim=1)


class Average(nn.Module):
    """No clusters, no parameters, none of the layer's options."""

    def __init__(self, dim, heads, head_dim, *, center_grid, region_grid, side=3):
        super().__init__()
        self.pool = nn.AvgPool2d(side, stride=1, padding=side // 2)

    def forward(self, x, scale=None):
        mixed = self.pool(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return mixed if scale is None else scale * mixed


def changed(step):
    """A class that doubles what one step returns (of the assignment and of pairs, half)."""

    def override(self, *args, **kwargs):
        out = STEPS[step](self, *args, **kwargs)
        return tuple(2 * part for part in out) if isinstance(out, tuple) else out / 2 if step == 'assign' else 2 * out

    return type('Changed', (ClusterMixer,), {step: override})


def run(model, images, how):
    if how == 'autocast':
        with torch.autocast('cpu', dtype=torch.bfloat16):
            return model(images).float()
    if how == 'compiled':
        torch._dynamo.reset()
        return torch.compile(model, backend='aot_eager', fullgraph=True)(images)
    if how == 'exported':
        return torch.export.export(model, (images,)).module()(images)
    return model(images)


# The normalized points are what `project` returns: twice as long they are the same, the values are not.
@pytest.mark.parametrize('step', STEPS)
@pytest.mark.parametrize('how', ['train', 'eval', 'autocast', 'compiled', 'exported'])
def test_every_step_takes_effect_everywhere(step, how):
    torch.manual_seed(0)
    stock = ContextCluster(TOY, num_classes=3).train(how == 'train')
    own = ContextCluster(TOY, num_classes=3, mixer=changed(step)).train(how == 'train')
    own.load_state_dict(stock.state_dict())
    plain = ContextCluster(TOY.override(impl='plain'), num_classes=3, mixer=changed(step)).train(how == 'train')
    plain.load_state_dict(stock.state_dict())
    images = torch.randn(2, 3, 32, 32)
    got = run(own, images, how)
    # A compiled or exported model is compared with models that are neither.
    how = how if how in ('train', 'autocast') else 'eval'
    want = run(stock, images, how)
    assert (got - want).norm() > 1e-3 * want.norm()
    tolerance = dict(rtol=0.1, atol=1e-3) if how == 'autocast' else {}
    assert_close(got, run(plain, images, how), **tolerance)
    got.sum().backward()
    assert all(p.grad is not None for p in own.parameters())


def test_print_says_what_runs_and_why():
    assert 'cpu: float32 on cpu' in repr(create_model('coc_tiny').stages[0].blocks[0].mixer)
    assert 'plain: Temperature overrides similarity' in repr(ContextCluster(TOY, mixer=Temperature))
    assert "plain: impl='plain' was asked for" in repr(
        ContextCluster(TOY.override(impl='plain')).stages[0].blocks[0].mlp
    )
    assert "impl='cpu' needs a CPU device, not meta" in repr(ContextCluster(TOY.override(impl='cpu')).to('meta').norm)


def test_a_module_in_the_place_of_a_step_is_refused():
    class Assigned(ClusterMixer):
        def __init__(self, **numbers):
            super().__init__(**numbers)
            self.assign = nn.Softmax(dim=1)

    with pytest.raises(
        ValueError, match='Assigned.assign is a step: PyTorch would keep a Softmax of that name but never'
    ):
        ContextCluster(TOY, mixer=Assigned)


def test_a_doubled_similarity_is_doubled_alpha_and_beta():
    class Doubled(ClusterMixer):
        def similarity(self, points_GND, centers_GMD):
            return 2 * super().similarity(points_GND, centers_GMD)

    own, stock = ContextCluster(TOY, num_classes=3, mixer=Doubled), ContextCluster(TOY, num_classes=3)
    stock.load_state_dict(own.state_dict())
    for block in (block for stage in stock.stages for block in stage.blocks):
        block.mixer.sim_alpha.data *= 2
        block.mixer.sim_beta.data = 2 * block.mixer.sim_beta
    images = torch.randn(2, 3, 32, 32)
    assert_close(own(images), stock(images))


def test_a_soft_assignment_by_hand():
    """One region, one point, two centers in the same place: each has half of it."""
    mixer = Soft(4, 1, 4, center_grid=(1, 2), region_grid=1)
    value = torch.tensor([2.0, 4.0, 6.0, 8.0])
    point = torch.tensor([1.0, 0.0, 0.0, 0.0]).view(1, 1, 1, 1, 4)
    s = torch.sigmoid(torch.tensor(1.0)) / 2
    held = (value + s * value) / (1 + s)
    assert_close(mixer.cluster(point, value.view(1, 1, 1, 1, 4)).flatten(), 2 * s * held)


def test_a_change_of_the_class_itself_is_noticed(monkeypatch):
    monkeypatch.setattr(ClusterMixer, 'similarity', lambda self, points, centers: 0 * centers @ points.mT)
    assert 'plain: ClusterMixer overrides similarity' in repr(ContextCluster(TOY))


def test_every_way_to_name_a_mixer():
    torch.manual_seed(0)
    images = torch.randn(1, 3, 64, 64)
    models = [
        create_model('coc_tiny', num_classes=3, mixer=partial(Temperature, temperature=2)),
        timm.create_model('coc_tiny', num_classes=3, mixer=partial(Temperature, temperature=2)),
        create_model('coc_tiny', num_classes=3, mixer=lambda **numbers: Temperature(**numbers, temperature=2)),
    ]
    for model in models:
        model.load_state_dict(models[0].state_dict())
        assert torch.equal(model(images), models[0](images))
        assert model.stages[1].blocks[0].mixer.temperature == 2
    maps = timm.create_model('coc_tiny', features_only=True, mixer=Average)(images)
    assert [m.shape[1] for m in maps] == [32, 64, 196, 320]


def test_a_mixer_without_clusters():
    model = ContextCluster(TOY, num_classes=3, mixer=partial(Average, side=5))
    images = torch.randn(2, 3, 33, 47)
    model(images).sum().backward()
    assert_close(torch.export.export(model.eval(), (images,)).module()(images), model(images))
    with pytest.raises(ValueError, match='The mixer of stage 0, block 0, Average, has no clusters to look at'):
        ClusterRecorder(model)
    with pytest.raises(ValueError, match='Average has no published form'):
        classify_reference(model, images[..., :32, :32])


def test_clusters_of_a_changed_layer_are_its_own():
    torch.manual_seed(0)
    model = ContextCluster(TOY, num_classes=0, mixer=Temperature)
    mixer, seen = model.stages[1].blocks[0].mixer, {}
    nn.init.constant_(mixer.temperature, -0.5)
    mixer.register_forward_pre_hook(lambda _, inputs: seen.update(x=inputs[0]))
    with ClusterRecorder(model, similarities=True) as recorder, torch.no_grad():
        model(torch.randn(1, 3, 32, 32))
    layer = recorder.clusters()[1]
    assert layer.name == 'stage 1, block 0'
    points = mixer.cut(mixer.project(seen['x'])[0])
    z_GMN = mixer.similarity(points, mixer.pool(points, (4, 4)))
    assert layer.scale == 'z' and recorder.clusters()[0].scale == 'z'
    assert_close(torch.from_numpy(layer.similarity), mixer.join(z_GMN.mT, (4, 4), 2)[0])
    assert (layer.own_similarity() == layer.similarity.max(-1)).all()


def test_a_step_of_one_layer_alone_is_told_and_not_published():
    model = ContextCluster(TOY, num_classes=3)
    mixer = model.stages[1].blocks[0].mixer
    mixer.similarity = lambda points_GND, centers_GMD: -torch.cdist(centers_GMD, points_GND)
    assert mixer.clusters(torch.randn(1, 4, 4, 12)).scale == 'z'
    with pytest.raises(ValueError, match='ClusterMixer has no published form, .*: ClusterMixer overrides similarity'):
        classify_reference(model, torch.zeros(1, 3, 32, 32))


def test_explain_names_the_forward_that_runs(capsys):
    class Own(ClusterMixer):
        def forward(self, x, scale=None):
            return x

    functions = {
        name: function
        for name, _, function, _ in ops.explain(ContextCluster(TOY, mixer=Own), torch.zeros(1, 3, 32, 32))
    }
    assert functions['stages.0.blocks.0.mixer'].endswith('Own.forward')
    assert 'Own overrides forward' in capsys.readouterr().out


class Wrong(Average):
    def forward(self, x, scale=None):
        return x.mean(dim=(1, 2), keepdim=True)


def test_a_mixer_that_returns_another_shape_is_refused():
    with pytest.raises(ValueError, match=r'Wrong returned \[1, 1, 1, 8\] for a map \[1, 8, 8, 8\]: a mixer returns'):
        ContextCluster(TOY, mixer=Wrong)(torch.zeros(1, 3, 32, 32))


class Wide(ClusterMixer):
    def __init__(self, *, width, **numbers):
        super().__init__(**numbers)


class Switched(Average):
    impl = 'auto'


def test_the_implementation_reaches_every_mixer_that_has_one():
    assert ContextCluster(TOY.override(impl='plain'), mixer=Switched).stages[0].blocks[0].mixer.impl == 'plain'
    assert ContextCluster(TOY, mixer=partial(ClusterMixer, impl='plain')).stages[0].blocks[0].mixer.impl == 'plain'
    model = ContextCluster(TOY, mixer=Switched)
    ops.set_implementation(model, 'reference')
    assert {block.mixer.impl for stage in model.stages for block in stage.blocks} == {'reference'}


@pytest.mark.parametrize(
    ('mixer', 'sentence'),
    [
        (partial(Temperature, dim=3), 'Temperature was given dim=3, a number of its stage: change it by the variant'),
        (partial(ClusterMixer, 8), "ClusterMixer cannot be built: .* 'dim'"),
        (Wide, "Wide cannot be built: missing a required (keyword-only )?argument: 'width'"),
        (type('Bare', (nn.Module,), {}), "Bare takes no argument 'dim'. It is a number of its stage"),
        (
            type('One', (Average,), {'forward': lambda self, x: x}),
            'One.forward must take a map and the layer scale: too many positional arguments',
        ),
        (partial(Temperature, temprature=2), "Temperature takes no argument 'temprature'. Did you mean 'temperature'"),
        (partial(Average, center_grids=2), "Average takes no argument 'center_grids'. Beside .* it takes side"),
        (
            type('Odd', (nn.Module,), {'__init__': lambda self, dim: None}),
            "Odd takes no argument 'heads'. It is a number of its",
        ),
        (nn.Identity(), 'mixer=Identity is no class: name a class or function'),
        ('Temperature', 'mixer=str is no class'),
        (lambda **numbers: 3, 'returned int: a mixer must be an nn.Module'),
    ],
)
def test_wrong_mixers_are_refused(mixer, sentence):
    with pytest.raises(ValueError, match=sentence):
        ContextCluster(TOY, mixer=mixer)


def test_what_a_mixer_cannot_be_built_with():
    with pytest.raises(ValueError, match="impl='cpu' does not know that Soft overrides assign"):
        ContextCluster(TOY.override(impl='cpu'), mixer=Soft)
    with pytest.raises(ValueError, match="Average takes no denominator: .* denominator='count'"):
        ContextCluster(TOY.override(denominator='count'), mixer=Average)
    assert (
        ContextCluster(TOY.override(denominator='count'), mixer=Soft).stages[0].blocks[0].mixer.denominator == 'count'
    )
    model = ContextCluster(TOY, mixer=Soft)
    ops.set_implementation(model, 'cpu')
    with pytest.raises(ValueError, match="impl='cpu' does not know that Soft overrides assign"):
        model(torch.zeros(1, 3, 32, 32))


def test_weights_of_another_mixer_load_where_the_caller_allows_it(tmp_path):
    stock, own = ContextCluster(TOY, num_classes=3), ContextCluster(TOY, num_classes=3, mixer=Temperature)
    path = tmp_path / 'stock.pth'
    torch.save({'state_dict': stock.state_dict()}, path)
    names = [f'stages.{i}.blocks.0.mixer.temperature' for i in (0, 1)]
    with pytest.raises(
        CheckpointError, match=r'2 missing \(.*temperature.*allow it to start .* with fresh_mixers=True'
    ):
        checkpoints.load(own, path)
    report = checkpoints.load(own, path, fresh_mixers=True)
    assert report.fresh == tuple(names) and report.unused == ()
    assert f'starts fresh by design: {names[0]}' in str(report)
    state = own.state_dict()
    assert all(torch.equal(state[key], value) for key, value in stock.state_dict().items())

    torch.save({'state_dict': state}, path)
    with pytest.raises(CheckpointError, match='2 unexpected .* build it with the mixer of these weights'):
        checkpoints.load(stock, path)
    assert checkpoints.load(stock, path, fresh_mixers=True).unused == tuple(names)
    other = ContextCluster(TOY, num_classes=3, mixer=Average)
    report = checkpoints.load(other, path, fresh_mixers=True)
    assert report.fresh == () and all('.mixer.' in key for key in report.unused)
    torch.save({'state_dict': other.state_dict()}, path)
    assert len(checkpoints.load(own, path, fresh_mixers=True).fresh) == 2 * 7
    with pytest.raises(CheckpointError, match=r'14 missing'):
        checkpoints.load(own, path)


@pytest.mark.parametrize('recorded', ['Soft', None])
def test_a_training_records_its_mixer(tmp_path, recorded):
    """The parameters of this one are those of the stock layer."""
    config = "model = dict(backbone=dict(\n    arch='coc_tiny', {}type='ContextCluster'))\nx = 1\n"
    mixer = f"mixer=dict(scale=dict(a=1), type='{recorded}'), " if recorded else ''
    path = tmp_path / 'own.pth'
    torch.save({'state_dict': ContextCluster(TOY).state_dict(), 'meta': {'cfg': config.format(mixer)}}, path)
    fitting, other = (ContextCluster(TOY, mixer=m) for m in ((Soft, None) if recorded else (None, Soft)))
    checkpoints.load(fitting, path)
    built = type(other.stages[0].blocks[0].mixer).__name__
    sentence = f'was trained with the mixer {recorded or "ClusterMixer"}, but the model was built with {built}'
    with pytest.raises(CheckpointError, match=sentence):
        checkpoints.load(other, path)
    checkpoints.load(other, path, fresh_mixers=True)
    with pytest.raises(CheckpointError, match='was trained with the mixer'):
        timm.create_model(
            'coc_tiny', pretrained=True, pretrained_cfg_overlay=dict(file=str(path)), num_classes=3,
            mixer=None if recorded else Soft,
        )  # fmt: skip
    if recorded:
        with pytest.raises(CheckpointError, match='trained with the mixer Soft: only weights of the published layer'):
            checkpoints.convert(path, tmp_path / 'new.pth', 'pth')
