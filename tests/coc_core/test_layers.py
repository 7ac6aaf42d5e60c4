"""The layers work on a few rows or regions at a time; what they compute is what plain operators compute."""

import copy
from functools import partial
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.testing import assert_close

from coc_core import VARIANTS, ContextCluster, create_model
from coc_core.layers import ClusterMixer, ContextClusterBlock, MapNorm, RowwiseMlp
from coc_core.ops import mlp as mlp_module
from coc_core.ops.cpu import mixer as mixer_module
from coc_core.ops.cpu import slabs
from coc_core.reference import classify_reference, dense_reference


class Case(NamedTuple):
    """A map of points [batch, height, width, dim], and the layer that mixes them."""

    batch: int
    height: int
    width: int
    dim: int
    heads: int
    head_dim: int
    center_grid: int = 2
    region_grid: int = 2

    def map(self):
        return torch.randn(self.batch, self.height, self.width, self.dim, dtype=torch.float64)

    def __str__(self):
        return (
            f'{self.batch}x{self.height}x{self.width}x{self.dim}, heads {self.heads}x{self.head_dim}, '
            f'centers {self.center_grid}, regions {self.region_grid}'
        )


CASES = [
    Case(3, 8, 12, 6, heads=2, head_dim=5),
    Case(2, 9, 7, 5, heads=3, head_dim=4, center_grid=5, region_grid=1),
    Case(1, 10, 14, 7, heads=1, head_dim=8, center_grid=7),
    Case(0, 4, 4, 6, heads=2, head_dim=3),
]


@pytest.fixture(params=['whole', 'pieces'])
def sizes(request, monkeypatch):
    """Everything at once and kept for backward, or one row and one slab at a time and nothing kept."""
    if request.param == 'pieces':
        for module in (mlp_module, mixer_module):
            monkeypatch.setattr(module, 'KEPT_BYTES', 0)
        monkeypatch.setattr(mlp_module, 'PIECE_BYTES', {'cpu': 600, 'cuda': 600})
        monkeypatch.setattr(slabs, 'PIECE_BYTES', 1)


def outputs_and_gradients(layer, x, *arguments):
    leaves = [t.detach().clone().requires_grad_() for t in (x, *arguments)]
    layer.zero_grad()
    y = layer(*leaves)
    y.backward(torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view(y.shape).sin())
    return [y, *(t.grad for t in leaves), *(p.grad for p in layer.parameters())]


def mixer_of(case, **options):
    torch.manual_seed(1)
    grids = dict(center_grid=case.center_grid, region_grid=case.region_grid)
    layer = ClusterMixer(case.dim, case.heads, case.head_dim, **grids, **options).double()
    with torch.no_grad():
        layer.sim_alpha.fill_(1.7)
        layer.sim_beta.fill_(-0.3)
    return layer


@pytest.mark.usefixtures('sizes')
@pytest.mark.parametrize('scaled', [False, True])
@pytest.mark.parametrize('denominator', ['similarity', 'count'])
@pytest.mark.parametrize('case', CASES, ids=str)
def test_mixer_equals_its_reference_form(case, denominator, scaled):
    reference, fast = (mixer_of(case, denominator=denominator, impl=impl) for impl in ('reference', 'auto'))
    x = case.map()
    scale = [torch.randn(case.dim, dtype=torch.float64)] * scaled
    want, got = (outputs_and_gradients(layer, x, *scale) for layer in (reference, fast))
    for g, w in zip(got, want, strict=True):
        assert_close(g, w, rtol=1e-10, atol=1e-12)


@pytest.mark.usefixtures('sizes')
@pytest.mark.parametrize('alpha', [0.0, -2.0])
def test_mixer_with_similarities_turned_round(alpha):
    reference, fast = (mixer_of(CASES[0], impl=impl) for impl in ('reference', 'auto'))
    for layer in (reference, fast):
        torch.nn.init.constant_(layer.sim_alpha, alpha)
    x = CASES[0].map()
    for g, w in zip(*(outputs_and_gradients(layer, x) for layer in (fast, reference)), strict=True):
        assert_close(g, w, rtol=1e-10, atol=1e-12)


def test_mixer_takes_a_map_of_any_strides():
    layer = mixer_of(CASES[0])
    x = torch.randn(3, 6, 8, 12, dtype=torch.float64).permute(0, 2, 3, 1)
    assert_close(layer(x), layer(x.contiguous()))


@pytest.mark.usefixtures('sizes')
@pytest.mark.parametrize('scaled', [False, True])
@pytest.mark.parametrize('rows', [0, 1, 37])
def test_mlp_equals_plain_operators(rows, scaled):
    torch.manual_seed(0)
    layer = RowwiseMlp(5, 11).double()
    x, scale = torch.randn(rows, 5, dtype=torch.float64), [torch.randn(5, dtype=torch.float64)] * scaled
    plain = copy.deepcopy(layer)
    plain.forward = lambda x, scale=1: scale * plain.fc2(F.gelu(plain.fc1(x)))
    want, got = (outputs_and_gradients(module, x, *scale) for module in (plain, layer))
    for g, w in zip(got, want, strict=True):
        assert_close(g, w, rtol=1e-10, atol=1e-12)


@pytest.mark.usefixtures('sizes')
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision_errs_no_more_than_plain_operators(dtype):
    """Twice the error of the reference block under the same autocast, against float64."""
    torch.manual_seed(0)
    errors = {}
    case = Case(2, 8, 8, 8, heads=2, head_dim=4)
    mixer = mixer_of(case, impl='reference')
    exact = ContextClusterBlock(case.dim, mixer, mlp_ratio=4, layer_scale_init=0.5, drop_path=0).double()
    x = case.map()
    want = outputs_and_gradients(exact, x)
    for impl in ('reference', 'auto'):
        block = copy.deepcopy(exact).float()
        block.mixer.impl = impl
        if impl == 'reference':
            block.mlp.forward = lambda x, scale, mlp=block.mlp: scale * mlp.fc2(F.gelu(mlp.fc1(x)))
        with torch.autocast('cpu', dtype=dtype):
            got = outputs_and_gradients(block, x.float())
        errors[impl] = [(g.double() - w).norm() / w.norm().clamp_min(1e-9) for g, w in zip(got, want, strict=True)]
    for reference, fast in zip(errors['reference'], errors['auto'], strict=True):
        # Gradients of numbers near zero have no relative error to speak of.
        assert fast <= 2 * reference + 1e-2


@pytest.mark.parametrize('shape', [(2, 5, 3, 4), (1, 1, 1, 6), (0, 2, 2, 4)])
def test_map_norm_equals_group_norm(shape):
    torch.manual_seed(0)
    norm = MapNorm(shape[-1]).double()
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    x = 3 + torch.randn(shape, dtype=torch.float64)
    plain = copy.deepcopy(norm)
    plain.forward = lambda x: F.group_norm(x.movedim(3, 1), 1, plain.weight, plain.bias, plain.eps).movedim(1, 3)
    want = outputs_and_gradients(plain, x)
    for g, w in zip(outputs_and_gradients(norm, x), want, strict=True):
        assert_close(g, w, rtol=1e-9, atol=1e-10)


def test_a_small_layer_scale_survives_float16():
    torch.manual_seed(0)
    layer = RowwiseMlp(8, 16)
    torch.nn.init.trunc_normal_(layer.fc2.weight, std=0.02)
    x, scale = torch.randn(500, 8), torch.full((8,), 1e-5)
    with torch.autocast('cpu', dtype=torch.float16):
        half = layer(x, scale).float()
    assert_close(half, layer(x, scale), rtol=0.05, atol=1e-8)


def test_layers_cannot_be_differentiated_twice_in_silence():
    layer = mixer_of(CASES[0])
    x = CASES[0].map().requires_grad_()
    (grad,) = torch.autograd.grad(layer(x).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="differentiated once only: .* build the model with impl='plain'"):
        grad.sum().backward()


@pytest.mark.parametrize('name', ['coc_tiny', 'coc_tiny_plain'])
def test_classifier_equals_the_published_form(name):
    model = create_model(name, num_classes=5, layer_scale_init=0.3).double()
    images = torch.randn(2, 3, 64, 96, dtype=torch.float64)
    assert_close(model(images), classify_reference(model, images), rtol=1e-9, atol=1e-10)


def test_dense_backbone_equals_the_published_form():
    config = VARIANTS['coc_tiny'].override(center_grid=5, layer_scale_init=0.3)
    model = ContextCluster(config, dense_indices=(0, 2, 3)).double()
    images = torch.randn(1, 3, 64, 96, dtype=torch.float64)
    for got, want in zip(model.forward_dense(images), dense_reference(model, images), strict=True):
        assert_close(got, want, rtol=1e-9, atol=1e-10)


def saved_bytes(model, images, forward):
    """What autograd keeps of a forward pass, but for parameters: each piece of memory once."""
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    sizes = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        loss = forward(images).sum()
    del loss
    return sum(sizes.values())


def test_a_training_step_keeps_little():
    """coc_tiny, eight images of 224x224: 169 MiB, where the published form keeps 665."""
    model, images = create_model('coc_tiny').train(), torch.randn(8, 3, 224, 224)
    kept, published = (saved_bytes(model, images, f) / 2**20 for f in (model, partial(classify_reference, model)))
    assert kept < 180
    assert published > 3.5 * kept


def test_compiled_model_equals_eager_one():
    torch._dynamo.reset()
    config = VARIANTS['coc_tiny'].override(depths=(1, 1, 1, 1), layer_scale_init=0.3)
    model, images = ContextCluster(config, num_classes=3).double(), torch.randn(2, 3, 64, 64, dtype=torch.float64)
    want = outputs_and_gradients(model, images)
    model.compile(backend='aot_eager', fullgraph=True)
    for g, w in zip(outputs_and_gradients(model, images), want, strict=True):
        assert_close(g, w, rtol=1e-9, atol=1e-11)


def test_what_is_kept_between_calls_outlives_inference_mode_and_fake_tensors():
    model = ContextCluster(VARIANTS['coc_tiny'].override(depths=(1, 1, 1, 1)), num_classes=3)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        assert copy.deepcopy(model)(mode.from_tensor(torch.zeros(1, 3, 96, 32))).shape == (1, 3)
    with torch.inference_mode():
        model(torch.zeros(1, 3, 96, 32))
    model(torch.zeros(1, 3, 96, 32)).sum().backward()
