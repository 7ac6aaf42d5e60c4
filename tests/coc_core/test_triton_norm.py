"""The norm's kernels, interpreted, against PyTorch's norm in float64; and compiled for GPUs that are not here."""

import json

import pytest
import torch
import torch.nn.functional as F
from processes import run_compiling
from torch.testing import assert_close

pytest.importorskip('triton')

from coc_core.layers import ClusterMixer, ContextClusterBlock, MapNorm
from coc_core.ops.triton import launch, plan

HALF = (torch.float16, torch.bfloat16)
# Odd sizes, channels that are no power of two, chunks of which the last is shorter or empty.
SHAPES = [(2, 5, 3, 4), (1, 1, 1, 2), (3, 9, 7, 33), (1, 33, 41, 196), (2, 40, 23, 64), (1, 5, 13, 64), (0, 2, 2, 4)]
COMPILE = """
import json, sys
from benchmarks import kernels
for channels, precision, architecture in json.loads(sys.argv[1]):
    print(json.dumps(kernels.inspect_norm(channels, precision, architecture)))
"""
EVERY = [
    (c, p, a) for c in (32, 64, 196, 320, 512) for p in ('fp32', 'fp16', 'bf16') for a in (80, 86, 89, 90, 100, 120)
]


def norm_of(channels, **options):
    norm = MapNorm(channels, impl='triton', **options)
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    return norm


def exact(norm, x, grad):
    """The output and all gradients of PyTorch's norm in float64."""
    leaves = [t.detach().double().requires_grad_() for t in (x, norm.weight, norm.bias)]
    y = F.group_norm(leaves[0].movedim(3, 1), 1, *leaves[1:], norm.eps).movedim(1, 3)
    return y, *torch.autograd.grad(y, leaves, grad.double())


def ours(norm, x, grad):
    x = x.detach().requires_grad_()
    y = norm(x)
    return y, *torch.autograd.grad(y, [x, norm.weight, norm.bias], grad.to(y.dtype))


@pytest.mark.parametrize('shape', SHAPES)
def test_outputs_and_gradients_are_those_of_group_norm(shape):
    torch.manual_seed(0)
    norm, x, grad = norm_of(shape[-1]), 3 + torch.randn(shape), torch.randn(shape)
    for got, want in zip(ours(norm, x, grad), exact(norm, x, grad), strict=True):
        assert_close(got.double(), want, rtol=1e-4, atol=2e-5)


def test_any_number_of_chunks_computes_the_same(monkeypatch):
    torch.manual_seed(0)
    norm, x, grad = norm_of(32), torch.randn(2, 30, 31, 32), torch.randn(2, 30, 31, 32)
    want = exact(norm, x, grad)
    for processors in (1, 3, 1000):
        monkeypatch.setattr(launch, 'processors', lambda x, number=processors: number)
        for got, expected in zip(ours(norm, x, grad), want, strict=True):
            assert_close(got.double(), expected, rtol=1e-4, atol=1e-5)


def test_a_map_that_is_a_view_is_read_as_what_it_shows():
    torch.manual_seed(0)
    norm, x, grad = norm_of(6), torch.randn(2, 6, 5, 7).permute(0, 2, 3, 1), torch.randn(2, 7, 5, 6).transpose(1, 2)
    for got, want in zip(ours(norm, x, grad), exact(norm, x, grad), strict=True):
        assert_close(got.double(), want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('dtype', HALF)
def test_half_precision_is_rounded_once(dtype):
    torch.manual_seed(0)
    norm, x, grad = norm_of(40), 2 + torch.randn(2, 20, 21, 40).to(dtype), torch.randn(2, 20, 21, 40).to(dtype)
    step = torch.finfo(dtype).eps
    wanted = exact(norm, x, grad)
    for got, want in zip(ours(norm, x, grad)[:2], wanted[:2], strict=True):
        assert got.dtype == dtype
        assert_close(got.double(), want, rtol=step, atol=step * 1e-2)
    # Sums over positions are in float32, as the parameters are.
    for got, want in zip(ours(norm, x, grad)[2:], wanted[2:], strict=True):
        assert_close(got.double(), want, rtol=1e-4, atol=1e-3)


def test_digits_do_not_cancel_far_from_zero():
    """Much better than PyTorch's norm of the same float32 map, of which the mean is 10,000 deviations."""
    torch.manual_seed(0)
    norm, x = norm_of(8), 1e4 + torch.randn(1, 32, 32, 8)
    want, *_ = exact(norm, x, x)
    torch_error, error = ((y.double() - want).norm() for y in (norm.forward_plain(x), norm(x)))
    assert error <= 0.1 * torch_error


@pytest.mark.parametrize('dtype', HALF)
def test_autocast_has_what_a_linear_layer_would_make_of_it(dtype):
    torch.manual_seed(0)
    wide, narrow = norm_of(12), norm_of(12, before_linear=True)
    narrow.load_state_dict(wide.state_dict())
    x = torch.randn(2, 6, 5, 12)
    with torch.autocast('cpu', dtype=dtype):
        for map_ in (x, x.to(dtype)):
            y, rounded = wide(map_), narrow(map_)
            assert y.dtype == torch.float32 and rounded.dtype == dtype
            # The interpreter cuts bfloat16 off.
            near = 0.0 if dtype == torch.float16 else 2**-7
            assert_close(rounded, y.to(dtype), rtol=near, atol=0.0)


class Own(ClusterMixer):
    def project(self, x):
        return super().project(x.exp())


def test_only_what_a_linear_layer_follows_is_rounded():
    def block(mixer_type):
        mixer = mixer_type(8, 2, 4, center_grid=2, region_grid=1)
        return ContextClusterBlock(8, mixer, mlp_ratio=2, layer_scale_init=1.0, drop_path=0.0)

    assert block(ClusterMixer).norm1.before_linear and block(ClusterMixer).norm2.before_linear
    assert not block(Own).norm1.before_linear and not MapNorm(8).before_linear


def test_what_is_not_a_number_stays_in_its_image():
    x = torch.randn(3, 6, 5, 7)
    x[1, 2, 3, 4] = float('nan')
    y = norm_of(7)(x)
    assert y[1].isnan().all() and y[[0, 2]].isfinite().all()


def test_images_beyond_the_reach_of_the_kernels_are_told():
    from coc_core.ops.triton import launch_norm

    x, one = torch.empty(1, 2**15, 2**11, 32, device='meta'), torch.empty(32, device='meta')
    with pytest.raises(ValueError, match="32768x2048 points has over 2\\^31 elements here: choose impl='plain'"):
        launch_norm.forward(x, one, one, 1e-5, torch.float32)


def test_chunks_keep_a_gpu_busy_and_fit_into_a_tile():
    for images in (1, 8, 128, 5000):
        for points in (1, 49, 3136, 100_000):
            chunks = plan.norm_chunks(images, points, 64, 132)
            assert 1 <= chunks <= plan.NORM_CHUNKS
            assert chunks == plan.NORM_CHUNKS or images * chunks >= 132 or chunks >= points // 64


@pytest.mark.parametrize(
    'cases', [[(196, 'bf16', 90), (64, 'fp16', 80)], pytest.param(EVERY, marks=pytest.mark.kernels)], ids=['few', 'all']
)
def test_nothing_spills_and_half_precision_is_loaded_in_vectors(cases):
    for case, line in zip(cases, run_compiling(COMPILE, json.dumps(cases)).splitlines(), strict=True):
        kernels = json.loads(line)
        assert len(kernels) == 4
        for name, registers, shared, spilled, narrow, _ in kernels:
            # sm_100 is short of two registers.
            assert spilled <= 8 and not narrow and registers <= 128 and shared <= 49152, (case, name, registers, shared)
