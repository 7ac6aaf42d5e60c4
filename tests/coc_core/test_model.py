"""What users rely on in the backbone beside its numbers: any size, any configuration, and errors that say why."""

import math

import pytest
import torch
from torch.testing import assert_close

from coc_core import VARIANTS, CoCConfig, ContextCluster, create_model, images
from coc_core.errors import UserError
from coc_core.images import append_coordinates

TOY = CoCConfig(depths=(1, 2), dims=(8, 12), mlp_ratios=2, heads=2, head_dim=4, center_grid=2, region_grid=(2, 1))


@pytest.mark.parametrize('size', [(224, 224), (97, 131), (33, 500), (32, 32), (4, 4)])
def test_any_size_gives_ceil_of_size_over_stride(size):
    model = create_model('coc_tiny', num_classes=7).eval()
    with torch.no_grad():
        final, intermediates = model.forward_intermediates(torch.randn(1, 3, *size))
        assert model(torch.randn(1, 3, *size)).shape == (1, 7)
    for feature, stride in zip([*intermediates, final], (4, 8, 16, 32, 32), strict=True):
        assert feature.shape[-2:] == tuple(math.ceil(n / stride) for n in size)


@pytest.mark.parametrize('name', VARIANTS)
def test_size_divisibility(name):
    assert VARIANTS[name].size_divisibility == {'coc_tiny2': 56, 'coc_tiny_plain': 4}.get(name, 32)


def test_padding_is_zeros_at_bottom_and_right_with_coordinates_over_the_padded_size():
    model = ContextCluster(TOY, num_classes=0).double().eval()
    image = torch.randn(1, 3, 13, 21, dtype=torch.float64)
    padded = torch.zeros(1, 3, 16, 24, dtype=torch.float64)
    padded[..., :13, :21] = image
    with torch.no_grad():
        assert torch.equal(model.forward_features(image), model.forward_features(padded)[..., :2, :3])


def test_coordinates_are_kept_for_a_stream_and_never_for_a_graph(monkeypatch):
    made = []
    make = images._coordinates
    monkeypatch.setattr(images, '_coordinates', lambda *kind: made.append(kind) or make(*kind))
    images._cached_coordinates.cache_clear()
    # A stream, again, another one, and a graph that is captured, twice.
    for stream, number in ((0, 1), (0, 1), (7, 2), (None, 3), (None, 4)):
        monkeypatch.setattr(images, '_stream', lambda device, stream=stream: stream)
        append_coordinates(torch.zeros(1, 3, 5, 9))
        assert len(made) == number


def test_coordinates_are_row_then_column():
    rows, cols = append_coordinates(torch.zeros(1, 3, 5, 9))[0, 3:]
    assert_close(rows[:, 0], torch.linspace(-0.5, 0.5, 5))
    assert_close(cols[0], torch.linspace(-0.5, 0.5, 9))
    assert (rows == rows[:, :1]).all() and (cols == cols[:1]).all()


@pytest.mark.parametrize('batch', [0, 1, 3])
@pytest.mark.parametrize('training', [False, True])
def test_any_batch(batch, training):
    model = ContextCluster(TOY.override(drop_path_rate=0.1), num_classes=3).train(training)
    logits = model(torch.randn(batch, 3, 16, 16))
    assert logits.shape == (batch, 3)
    logits.sum().backward()


@pytest.mark.parametrize('training', [False, True])
def test_autocast_stays_close_to_float32(training):
    model = create_model('coc_tiny', layer_scale_init=0.5).train(training)
    image = torch.randn(2, 3, 64, 64)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        logits = model(image)
    logits.float().sum().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())
    assert_close(logits.float(), model(image), rtol=0.1, atol=0.1)


def test_export_keeps_numbers():
    model = create_model('coc_tiny', num_classes=5).eval()
    image = torch.randn(2, 3, 96, 96)
    program = torch.export.export(model, (image,))
    assert_close(program.module()(image), model(image))


@pytest.mark.parametrize('config', [TOY, TOY.override(in_channels=1), TOY.override(denominator='count')])
def test_every_parameter_takes_part_in_training(config):
    for model, forward in (
        (ContextCluster(config, num_classes=3), 'forward'),
        (ContextCluster(config, dense_indices=(0, 1)), 'forward_dense'),
        (ContextCluster(config, dense_indices=(1,)), 'forward_dense'),
        (ContextCluster(config, dense_indices=(0,)), 'forward_dense'),
    ):
        outputs = getattr(model.train(), forward)(torch.randn(2, config.in_channels, 32, 32))
        sum((o**2).sum() for o in outputs).backward()
        assert [n for n, p in model.named_parameters() if p.grad is None] == []


def test_grids_change_on_trained_weights():
    trained = create_model('coc_small', num_classes=0)
    other = create_model('coc_small', num_classes=0, center_grid=5, region_grid=(4, 4, 2, 1))
    other.load_state_dict(trained.state_dict())


def test_train_and_eval_return_self():
    model = ContextCluster(TOY)
    assert model.train() is model and model.eval() is model


def test_initialization_follows_the_published_code():
    model = create_model('coc_small')
    block = model.stages[0].blocks[0]
    for linear in (block.mlp.fc1, block.mlp.fc2, model.head):
        assert linear.weight.std().item() == pytest.approx(0.02, rel=0.1) and linear.bias.abs().max() == 0
    # PyTorch's default: uniform within 1 / sqrt(fan_in).
    bound = 1 / math.sqrt(64)
    assert block.mixer.points_values.weight.abs().max().item() == pytest.approx(bound, rel=0.01)
    assert block.mixer.points_values.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.05)
    assert (block.gamma1 == 1e-5).all() and block.mixer.sim_alpha == 1 and block.mixer.sim_beta == 0


def test_drop_path_rises_linearly_over_the_whole_depth():
    model = create_model('coc_tiny', drop_path_rate=0.13)
    rates = [getattr(b.drop_path, 'drop_prob', 0.0) for stage in model.stages for b in stage.blocks]
    assert rates == pytest.approx([0.13 * i / 13 for i in range(14)])


def test_dense_indices_decide_which_norms_and_stages_exist():
    model = ContextCluster(TOY, dense_indices=(1,))
    assert set(model.dense_norms) == {'1'} and not hasattr(model.norm, 'weight')
    assert len(ContextCluster(TOY, dense_indices=(0,)).stages) == 1


def test_reset_classifier():
    model = ContextCluster(TOY, num_classes=10)
    model.reset_classifier(4)
    assert model(torch.zeros(1, 3, 32, 32)).shape == (1, 4)
    model.reset_classifier(0)
    assert model(torch.zeros(1, 3, 32, 32)).shape == (1, 12)


def test_checkpointing_keeps_gradients():
    model = ContextCluster(TOY, num_classes=3).double().train()
    image = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    gradients = []
    for enable in (False, True):
        model.set_grad_checkpointing(enable)
        model.zero_grad()
        model(image).sum().backward()
        gradients.append([p.grad.clone() for p in model.parameters()])
    for plain, recomputed in zip(*gradients, strict=True):
        assert_close(plain, recomputed)


@pytest.mark.parametrize(
    ('build', 'sentence'),
    [
        (lambda: create_model('coc_smal'), "Unknown variant 'coc_smal'. Did you mean 'coc_small'"),
        (lambda: create_model('coc_small', center_grids=5), "no field 'center_grids'. Did you mean 'center_grid'"),
        (lambda: create_model('coc_small', heads=(4, 4)), r'heads=\(4, 4\) has 2 entries but depths=.* 4 stages'),
        (lambda: create_model('coc_small', center_grid=0), 'center_grid=.* positive integers'),
        (lambda: create_model('coc_small', denominator='sum'), "denominator='sum' is unknown"),
        (lambda: create_model('coc_small', impl='cuda'), "impl='cuda' is unknown"),
        (lambda: create_model('coc_small', drop_path_rate=1.5), r'drop_path_rate=1.5 must lie in \[0, 1\)'),
        (lambda: create_model('coc_small', num_classes=-1), 'num_classes=-1 must not be negative'),
        (lambda: ContextCluster(TOY, dense_indices=(0, 5)), r'Stage indices \[0, 5\] must be distinct and lie between'),
        (lambda: ContextCluster(TOY)(torch.zeros(1, 4, 32, 32)), 'images have 4 channels .* in_channels=3'),
        (
            lambda: ContextCluster(TOY)(torch.zeros(3, 32, 32)),
            r'images must be \[B, 3, H, W\]; got shape \[3, 32, 32\]',
        ),
        (lambda: ContextCluster(TOY)(torch.zeros(1, 3, 3, 32)), '3x32 pixels are smaller than the stem'),
        (lambda: ContextCluster(TOY)(torch.zeros(1, 3, 8, 8).byte()), 'must be floating point'),
        (lambda: ContextCluster(TOY).forward_dense(torch.zeros(1, 3, 8, 8)), 'is a classifier'),
    ],
)
def test_wrong_arguments_are_errors_with_a_sentence(build, sentence):
    with pytest.raises(ValueError, match=sentence):
        build()


@pytest.mark.parametrize(
    ('argument', 'advice'),
    [('num_class', "Did you mean 'num_classes'"), ('pretrained', 'Weights are loaded by coc_core.checkpoints.load')],
)
def test_an_argument_beside_the_fields_is_proposed(argument, advice):
    with pytest.raises(UserError, match=f'has no field {argument!r}. {advice}'):
        create_model('coc_tiny', **{argument: 1})
