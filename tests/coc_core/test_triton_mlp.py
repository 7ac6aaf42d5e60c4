"""The MLP's kernel, interpreted, against PyTorch in float64; and compiled for GPUs that are not here."""

import itertools
import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from processes import run_compiling
from torch import nn
from torch.testing import assert_close

pytest.importorskip('triton')

import triton
import triton.language as tl
from triton.runtime import interpreter

from coc_core.layers import RowwiseMlp
from coc_core.ops import mlp as in_pieces
from coc_core.ops.dispatch import Call, choose, select
from coc_core.ops.triton import launch, launch_mlp, plan
from coc_core.ops.triton import mlp as kernels

HALF = (torch.float16, torch.bfloat16)
DEVICE = 'cuda' if torch.cuda.is_available() else 'cpu'
# Odd numbers of positions, an empty map, one of several programs, widths that are no power of two.
CASES = [
    ((3, 5, 7, 8), 32),
    ((2, 1, 1, 5), 7),
    ((0, 4, 4, 8), 32),
    ((1, 17, 31, 33), 70),
    ((300, 96), 384),
    ((2, 128), 200),
]
COMPILE = """
import json, sys
from benchmarks import kernels
for channels, hidden, precision, architecture in json.loads(sys.argv[1]):
    print(json.dumps(kernels.inspect_mlp(channels, hidden, precision, architecture)))
"""
EVERY = [
    (c, e, p, a)
    for c, e in ((32, 256), (64, 512), (96, 768), (128, 1024))
    for p in ('fp16', 'bf16')
    for a in (80, 86, 89, 90, 100, 120)
]


def layer_of(channels, hidden, dtype=torch.float32):
    layer = RowwiseMlp(channels, hidden, impl='triton').to(DEVICE)
    for linear in (layer.fc1, layer.fc2):
        nn.init.normal_(linear.weight, std=linear.in_features**-0.5)
        nn.init.normal_(linear.bias)
    return layer.to(dtype)


def exact(layer, x):
    weights = [t.detach().double() for t in (layer.fc1.weight, layer.fc1.bias, layer.fc2.weight, layer.fc2.bias)]
    return F.linear(F.gelu(F.linear(x.double(), *weights[:2])), *weights[2:])


def distance(got, want):
    return float((got.double() - want).norm() / want.norm())


@pytest.mark.parametrize('dtype', HALF)
@pytest.mark.parametrize(('shape', 'hidden'), CASES)
def test_outputs_are_those_of_float64_and_gradients_those_of_the_pieces(shape, hidden, dtype):
    torch.manual_seed(0)
    layer = layer_of(shape[-1], hidden, dtype)
    x = torch.randn(shape, device=DEVICE).to(dtype).requires_grad_()
    leaves = [x, *layer.parameters()]
    assert choose(layer, x).row.function is in_pieces.kernel_mlp
    got, pieces = layer(x), in_pieces.mlp(layer, x)
    assert got.dtype == dtype and got.shape == pieces.shape
    # Twice what rounding to nearest leaves: the interpreter cuts bfloat16 off.
    step = torch.finfo(dtype).eps * (1 if dtype == torch.float16 else 2)
    assert_close(got.double(), exact(layer, x), rtol=step, atol=step)
    upstream = torch.randn(shape, device=DEVICE).to(dtype)
    grads = (torch.autograd.grad(y, leaves, upstream) for y in (got, pieces))
    assert all(torch.equal(g, w) for g, w in zip(*grads, strict=True))


def test_it_is_nearer_to_float64_than_the_pieces():
    torch.manual_seed(0)
    layer, x = layer_of(32, 256, torch.float16), torch.randn(400, 32, device=DEVICE).half()
    want = exact(layer, x)
    assert distance(layer(x), want) < 0.9 * distance(in_pieces.mlp(layer, x), want)


@triton.jit
def apply_gelu(x_ptr, out_ptr, N: tl.constexpr):
    place = tl.arange(0, N)
    tl.store(out_ptr + place, kernels.gelu(tl.load(x_ptr + place)))


def test_gelu_is_exact(monkeypatch):
    """To an eightieth of what float16 rounds away; PyTorch's in float32 loses all digits of the tail."""
    # On a GPU a number is larger and smaller than none.
    monkeypatch.setattr(interpreter.InterpreterBuilder, 'create_maxnumf', lambda s, x, y: s.binary_op(x, y, np.fmax))
    monkeypatch.setattr(interpreter.InterpreterBuilder, 'create_minnumf', lambda s, x, y: s.binary_op(x, y, np.fmin))
    x = torch.linspace(-12, 12, 2**16, device=DEVICE)
    x[:4] = torch.tensor([float('nan'), float('inf'), -float('inf'), 0.0])
    got = torch.empty_like(x)
    apply_gelu[(1,)](x, got, N=len(x))
    assert got[0].isnan() and got[1] == torch.inf and abs(got[2]) < 1e-8 and abs(got[3]) < 1e-8
    x, got, want = x[4:], got[4:].double(), F.gelu(x[4:].double())
    inner = x > -6
    assert_close(got[inner], want[inner], rtol=6e-6, atol=1e-12)
    assert (got - want)[~inner].abs().max() < 6e-9


@pytest.mark.parametrize('dtype', HALF)
def test_layer_scale_and_autocast(dtype):
    torch.manual_seed(0)
    layer, x = layer_of(24, 96), torch.randn(2, 9, 6, 24, device=DEVICE)
    scale = torch.randn(24, device=DEVICE, requires_grad=True)
    with torch.autocast(DEVICE, dtype=dtype):
        got, pieces = layer(x, scale), in_pieces.mlp(layer, x, scale)
    assert got.dtype == pieces.dtype
    step = 8 * torch.finfo(dtype).eps
    assert_close(got.double(), scale * exact(layer, x), rtol=step, atol=step)
    grads = (torch.autograd.grad(y.sum(), [*layer.parameters(), scale]) for y in (got, pieces))
    for got, want in zip(*grads, strict=True):
        # In float16 the scale's own gradient is a sum of outputs.
        assert_close(got, want, rtol=step, atol=step)


def test_what_is_not_a_number_stays_in_its_position():
    torch.manual_seed(0)
    layer, x = layer_of(33, 70, torch.float16), torch.randn(260, 33, device=DEVICE).half()
    clean = layer(x)
    x[5, 3], x[131, 0] = float('nan'), float('inf')
    y = layer(x)
    touched = torch.zeros(260, dtype=torch.bool)
    touched[[5, 131]] = True
    assert y[5].isnan().all() and not y[131].isfinite().any()
    assert torch.equal(y[~touched], clean[~touched])


def test_a_view_is_read_as_what_it_shows():
    torch.manual_seed(0)
    layer, x = layer_of(8, 32, torch.float16), torch.randn(2, 8, 5, 3, device=DEVICE).half().permute(0, 2, 3, 1)
    layer.fc1.weight = nn.Parameter(layer.fc1.weight.detach().t().contiguous().t())
    assert_close(layer(x).double(), exact(layer, x), rtol=2e-3, atol=2e-3)


@pytest.mark.skipif(torch.cuda.is_available(), reason='One program alone can only be interpreted.')
def test_positions_beyond_the_reach_of_int32(monkeypatch):
    builder = interpreter.interpreter_builder

    def run_last(kernel, programs, *arguments, warps, **sizes):
        monkeypatch.setattr(builder, 'set_grid_idx', lambda x, y, z: setattr(builder, 'grid_idx', (programs - 1, y, z)))
        kernel[(1,)](*arguments, **sizes)

    torch.manual_seed(0)
    monkeypatch.setattr(launch, 'run', run_last)
    layer, x = layer_of(32, 64, torch.float16), torch.empty(2**26 + 7, 32, dtype=torch.float16)
    last = x[-7:] = torch.randn(7, 32).half()
    with torch.no_grad():
        assert_close(layer(x)[-7:].double(), exact(layer, last), rtol=2e-3, atol=2e-3)


def test_what_does_not_go_together_is_told():
    x, bias = torch.zeros(3, 8).half(), torch.zeros(32).half()
    weight1, weight2 = torch.zeros(32, 8).half(), torch.zeros(8, 32).half()
    for wrong in (
        (x, weight1.float(), bias, weight2, bias[:8]), (x, weight1, bias, weight2[:, :9], bias[:8]),
        (x[:, :7], weight1, bias, weight2, bias[:8]),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=r'An MLP with weights .* does not take a map of [78] channels in'):
            launch_mlp.forward(*wrong)


def test_wide_maps_and_float32_are_served_in_pieces():
    for channels, dtype in ((plan.MLP_CHANNELS + 1, torch.float16), (8, torch.float32)):
        layer, x = layer_of(channels, 16, dtype), torch.randn(2, channels, device=DEVICE).to(dtype)
        assert choose(layer, x).row.function is in_pieces.mlp
        assert_close(layer(x).double(), exact(layer, x), rtol=1e-2, atol=1e-2)


def test_compilers_and_transforms_see_plain_pytorch():
    for impl, who in itertools.product(('auto', 'triton'), ('a compiler or exporter', 'torch.func')):
        call = Call('cuda', torch.float16, who, 0, 64)
        assert select('mlp', impl, call).name == 'plain'
        assert select('mlp', impl, call._replace(traced_by='')).kernels


@pytest.mark.parametrize(
    'cases',
    [[(128, 1024, 'bf16', 80), (64, 512, 'fp16', 90)], pytest.param(EVERY, marks=pytest.mark.kernels)],
    ids=['few', 'all'],
)
def test_nothing_spills_and_half_precision_is_loaded_in_vectors(cases):
    for case, line in zip(cases, run_compiling(COMPILE, json.dumps(cases)).splitlines(), strict=True):
        name, registers, shared, spilled, narrow, _ = json.loads(line)
        assert not spilled and not narrow and registers <= 128 and shared <= 49152, (case, name, registers, shared)
