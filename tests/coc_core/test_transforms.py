"""What PyTorch does to functions works on the plain page: tracing, transforms, derivatives of any order."""

import pytest
import torch
from torch.autograd import forward_ad
from torch.func import functional_call, grad, jvp, vmap
from torch.testing import assert_close

from coc_core import create_model, ops

IMPLS = ['plain', 'auto']


@pytest.fixture(params=IMPLS)
def model(request):
    """``'auto'`` takes plain operators by itself where it sees that they are wanted."""
    torch.manual_seed(0)
    return create_model('coc_tiny', num_classes=3, impl=request.param, layer_scale_init=0.3).double().eval()


@pytest.fixture
def images():
    return torch.randn(2, 3, 32, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def test_fx(model, images):
    traced = torch.fx.symbolic_trace(model)
    assert_close(traced(images), model(images))
    other = images[..., :29, :50]
    assert_close(traced(other), model(other))
    with pytest.raises(ValueError, match='images have 4 channels'):
        traced(torch.zeros(1, 4, 32, 32))


@pytest.mark.filterwarnings('ignore::torch.jit.TracerWarning')
def test_jit_trace(model, images):
    assert_close(torch.jit.trace(model, images, check_trace=False)(images), model(images))


def test_jit_script_is_refused_in_a_sentence(model):
    with pytest.raises(RuntimeError, match=r'^torch\.jit\.script does not take a Context Cluster: use torch\.export'):
        torch.jit.script(model)


def test_gradients_of_each_sample(model, images):
    parameters = dict(model.named_parameters())

    def loss(parameters, image):
        return functional_call(model, parameters, image[None]).square().sum()

    each = vmap(grad(loss), in_dims=(None, 0))(parameters, images)
    model(images[1:]).square().sum().backward()
    for name, parameter in parameters.items():
        assert_close(each[name][1], parameter.grad, rtol=1e-9, atol=1e-11)


def test_forward_mode_agrees_with_differences(model, images):
    direction = torch.randn_like(images)
    out, tangent = jvp(model, (images,), (direction,))
    assert_close(out, model(images))
    step = 1e-6
    difference = (model(images + step * direction) - model(images - step * direction)) / (2 * step)
    assert_close(tangent, difference, rtol=1e-4, atol=1e-6)
    with forward_ad.dual_level():
        dual = model(forward_ad.make_dual(images, direction))
        assert_close(forward_ad.unpack_dual(dual).tangent, tangent)


def penalty(model, images):
    """The squared norm of the gradient, as a gradient penalty adds it to a loss."""
    leaf = images.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(model(leaf).square().sum(), leaf, create_graph=True)
    return gradient.square().sum()


def test_gradient_penalty(images):
    torch.manual_seed(0)
    model = create_model('coc_tiny', num_classes=3, impl='plain', layer_scale_init=0.3).double()
    parameter = model.stages[1].blocks[0].mixer.sim_alpha
    (second,) = torch.autograd.grad(penalty(model, images), parameter)
    step = 1e-5
    values = []
    for sign in (1, -1):
        with torch.no_grad():
            parameter += sign * step
        values.append(penalty(model, images).detach())
        with torch.no_grad():
            parameter -= sign * step
    assert_close(second[0], (values[0] - values[1]) / (2 * step), rtol=1e-4, atol=1e-8)


def test_fused_code_says_which_implementation_has_second_derivatives(images):
    model = create_model('coc_tiny', num_classes=3).double()
    with pytest.raises(RuntimeError, match="differentiated once only: for second derivatives .* impl='plain'"):
        penalty(model, images).backward()


def test_the_operator_alone(images):
    points, values = images.view(2, 2, 8, 8, 4, 12)[:, 0], images.view(2, 2, 8, 8, 4, 12)[:, 1]
    one = torch.ones(1, dtype=torch.float64)

    def run(points, values):
        return ops.cluster(points, values, one, 0 * one, center_grid=2, region_grid=2)

    want = run(points, values)
    torch._dynamo.reset()
    assert_close(torch.compile(run, backend='aot_eager', fullgraph=True)(points, values), want)
    assert_close(vmap(lambda p, v: run(p[None], v[None])[0])(points, values), want)
