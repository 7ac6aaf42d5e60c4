"""One table decides which code runs, and says so."""

import itertools

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from coc_core import ContextCluster, create_model, ops
from coc_core.ops import dispatch
from coc_core.ops.dispatch import TABLE, Call, Row, select


def test_explain_tells_every_layer(capsys):
    model = create_model('coc_tiny', num_classes=3)
    told = ops.explain(model, torch.zeros(1, 3, 64, 64))
    assert len(told) == 4 * 14 + 1
    assert told[1] == ('stages.0.blocks.0.mixer', 'cpu', 'coc_core.ops.cpu.mixer.mix', 'float32 on cpu')
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == len(told) and printed[1].split()[:2] == ['stages.0.blocks.0.mixer', 'cpu']
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_explain_under_autocast_and_by_name():
    model = create_model('coc_tiny', num_classes=3, impl='plain')
    with torch.autocast('cpu', dtype=torch.bfloat16):
        told = ops.explain(model, torch.zeros(1, 3, 64, 64))
    assert {row[1] for row in told} == {'plain'}
    assert told[1][2] == 'coc_core.layers.ClusterMixer.forward_plain'
    ops.set_implementation(model, 'auto')
    with torch.autocast('cpu', dtype=torch.bfloat16):
        assert ops.explain(model, torch.zeros(1, 3, 64, 64))[1][3] == 'bfloat16 on cpu'


def test_every_operation_has_a_plain_row_that_takes_every_call():
    devices, dtypes, tracers = ('cpu', 'cuda', 'meta'), (torch.half, torch.double), ('', 'a compiler', 'torch.func')
    calls = [Call(*each, 10**4, 10**4) for each in itertools.product(devices, dtypes, tracers)]
    for operation in TABLE:
        for call in calls:
            assert not dispatch.plain_row(operation).misfit(call)
            assert select(operation, 'auto', call).name in ('cpu', 'plain', 'triton')


def test_a_new_implementation_is_one_row(monkeypatch):
    def twice(*arguments, **options):
        return 2 * ops.cluster(*arguments, **options, impl='reference')

    monkeypatch.setattr(dispatch, 'TABLE', dict(TABLE))
    dispatch.register(Row('mine', twice))
    with pytest.raises(ValueError, match="There is an implementation 'mine'"):
        dispatch.register(Row('mine', twice))
    x, one = torch.randn(1, 4, 4, 1, 3), torch.ones(1)
    got, want = (ops.cluster(x, x, one, one, center_grid=2, region_grid=1, impl=i) for i in ('mine', 'reference'))
    assert torch.equal(got, 2 * want)
    mine, stock = (create_model('coc_tiny', impl=i, layer_scale_init=1.0).eval() for i in ('mine', 'reference'))
    stock.load_state_dict(mine.state_dict())
    for block in (block for stage in stock.stages for block in stage.blocks):
        block.mixer.proj.weight.data *= 2
    images = torch.randn(1, 3, 32, 32)
    assert_close(mine(images), stock(images))
    assert {row[1] for row in ops.explain(mine, images)} == {'mine', 'plain'}
    # What has no row of that name runs plain.
    assert select('mlp', 'mine', Call('cpu', torch.float32, '')).name == 'plain'


def test_named_code_is_used_or_refused():
    model = create_model('coc_tiny', num_classes=3, impl='cpu')
    assert {row[1] for row in ops.explain(model, torch.zeros(1, 3, 32, 32))} == {'cpu'}
    with pytest.raises(ValueError, match="impl='cpu' is not made for torch.func: choose impl='auto', or 'plain'"):
        torch.func.vmap(lambda image: model(image[None]))(torch.zeros(2, 3, 32, 32))
    with pytest.raises(ValueError, match="impl='cpu' needs a CPU device, not meta"):
        model.to('meta')(torch.zeros(1, 3, 32, 32, device='meta'))
    reference = create_model('coc_tiny', num_classes=3, impl='reference')
    assert {row[1] for row in ops.explain(reference, torch.zeros(1, 3, 32, 32))} == {'reference', 'plain'}


class Nothing(nn.Module):
    def __init__(self, dim, heads, head_dim, *, center_grid, region_grid):
        super().__init__()

    def forward(self, x, scale=None):
        return 0 * x


def test_a_mixer_of_its_own_is_told():
    model = ContextCluster(create_model('coc_tiny').config, num_classes=0, mixer=Nothing)
    told = ops.explain(model, torch.zeros(1, 3, 32, 32))
    assert told[1][1] == 'own' and told[1][2].endswith('.Nothing') and told[1][3] == 'a mixer of its own'


@pytest.mark.skipif(not dispatch._TRITON, reason='Triton is not installed')
@pytest.mark.parametrize(
    ('call', 'name'),
    [
        (Call('cuda', torch.bfloat16, '', 49, 32), 'triton'),
        (Call('cuda', torch.bfloat16, 'a compiler or exporter', 49, 32), 'triton'),
        (Call('cuda', torch.bfloat16, 'torch.func', 49, 32), 'plain'),
        (Call('cuda', torch.float64, '', 49, 32), 'plain'),
        (Call('cuda', torch.float32, '', 65, 32), 'plain'),
        (Call('cuda', torch.float32, '', 49, 257), 'plain'),
        (Call('cpu', torch.float64, '', 65, 257), 'cpu'),
        (Call('cpu', torch.float32, 'torch.jit.trace', 4, 24), 'plain'),
        (Call('meta', torch.float32, '', 4, 24), 'plain'),
    ],
)
def test_chosen_by_device_precision_sizes_and_tracing(call, name):
    assert {select(operation, 'auto', call).name for operation in ('cluster', 'mixer')} == {name}
