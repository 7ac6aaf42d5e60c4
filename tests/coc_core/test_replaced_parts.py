"""Parts of a layer that were replaced, patched or hooked after it was built take effect, and print tells of them."""

import pytest
import torch
from torch import nn
from torch.nn.utils import prune
from torch.testing import assert_close

from coc_core import create_model
from coc_core.layers import ClusterMixer, MapNorm


@pytest.fixture
def model():
    torch.manual_seed(0)
    return create_model('coc_tiny', num_classes=3, layer_scale_init=0.5).eval()


@pytest.fixture
def images():
    return torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))


class Soft(ClusterMixer):
    def assign(self, z_GMN):
        return z_GMN.softmax(dim=1)


class Adapted(nn.Linear):
    """As PEFT puts a layer of its own in the place of one."""

    def forward(self, x):
        return 2 * super().forward(x)


def adapt(mixer):
    mixer.proj = Adapted(mixer.proj.in_features, mixer.proj.out_features)


@pytest.mark.parametrize(
    ('change', 'reason'),
    [
        (lambda mixer: setattr(mixer, 'pool', lambda x, size: 2 * x[:, :4]), 'plain: ClusterMixer overrides pool'),
        (adapt, 'plain: proj is no nn.Linear but Adapted'),
        (lambda mixer: setattr(mixer.points_values, 'bias', None), 'plain: points_values has no bias'),
        (lambda mixer: mixer.proj.register_forward_hook(lambda m, x, y: 0 * y), 'plain: proj has hooks'),
        (
            lambda mixer: setattr(mixer.proj, 'forward', lambda x: 0 * x[..., :32]),
            'plain: proj has hooks, or a forward of its own',
        ),
        (lambda mixer: prune.l1_unstructured(mixer.proj, 'bias', 1.0), 'plain: proj has hooks'),
        (lambda mixer: setattr(mixer, '__class__', Soft), 'plain: Soft overrides assign'),
    ],
)
def test_parts_that_were_replaced_take_effect(model, images, change, reason):
    before = model(images)
    change(model.stages[0].blocks[0].mixer)
    assert not torch.allclose(model(images), before)
    assert reason in repr(model)


class Halved(MapNorm):
    def forward_plain(self, x):
        return super().forward_plain(x) / 2


@pytest.mark.parametrize(
    ('change', 'reason'),
    [
        (lambda block: setattr(block.mlp, 'act', nn.ReLU()), 'its activation, dropout or norm is another'),
        (
            lambda block: setattr(block.mlp, 'norm', nn.LayerNorm(256)),
            'its activation, dropout or norm is another',
        ),
        (
            lambda block: block.mlp.act.register_forward_hook(lambda m, x, y: 0 * y),
            'its activation, dropout or norm is',
        ),
        (lambda block: block.mlp.drop2.register_forward_hook(lambda m, x, y: 0 * y), 'its dropout or norm has hooks'),
        (
            lambda block: setattr(block.mlp.fc2, 'forward', lambda x: x[..., :32]),
            'fc2 has hooks, or a forward of its own',
        ),
        (
            lambda block: setattr(block.mlp, 'fc1', Adapted(32, 256)),
            'fc1 is no nn.Linear but Adapted',
        ),
        (lambda block: setattr(block, 'norm1', Halved(32)), 'Halved overrides forward_plain'),
    ],
)
def test_replaced_parts_of_mlp_and_norm_take_effect(model, images, change, reason):
    before = model(images)
    change(model.stages[0].blocks[0])
    assert not torch.allclose(model(images), before)
    assert f'plain: {reason}' in repr(model)


def replica_of(module):
    """As nn.DataParallel makes it: parameters are plain attributes."""
    replica = module._replicate_for_data_parallel()
    for name, parameter in module.named_parameters(recurse=False):
        setattr(replica, name, parameter.clone())
    for name, child in module.named_children():
        replica._modules[name] = replica_of(child)
    return replica


def test_parts_that_change_nothing_are_taken(model, images):
    before = model(images)
    model.stages[0].blocks[0].mlp.drop1 = nn.Identity()
    assert torch.equal(model(images), before)
    x = torch.randn(1, 16, 16, 32)
    mixer = model.stages[0].blocks[0].mixer
    assert_close(replica_of(mixer)(x), mixer(x))


@pytest.mark.parametrize('part', ['mlp', 'mixer'])
def test_a_part_without_the_layer_scale_is_refused_where_it_is_put_in(model, part):
    class Bare(nn.Module):
        def forward(self, x):
            return x

    with pytest.raises(ValueError, match=r'^Bare\.forward must take a map and the layer scale: too many positional'):
        setattr(model.stages[0].blocks[0], part, Bare())
