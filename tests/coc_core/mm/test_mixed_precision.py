"""Training steps in bfloat16 where mmengine's mixed precision asserts a GPU."""

import pytest
import torch
from mmengine.optim import build_optim_wrapper
from torch import nn

from coc_core.mm.mixed_precision import processor_has_bfloat16


def build(kind):
    torch.manual_seed(0)
    model = nn.Linear(4, 4, bias=False)
    optimizer = dict(type='AdamW', lr=0.1)
    return model, build_optim_wrapper(model, dict(type=kind, optimizer=optimizer, accumulative_counts=2))


def test_only_the_forward_of_a_step_is_in_bfloat16():
    seen = []
    model, wrapper = build('Bfloat16OptimWrapper')
    wrapper.initialize_count_status(model, 0, 4)
    for _ in range(2):
        with wrapper.optim_context(model):
            outputs = model(torch.ones(2, 4))
        seen.append(outputs.dtype)
        wrapper.update_params(outputs.float().square().sum())
    assert seen == [torch.bfloat16] * 2 and not torch.is_autocast_enabled('cpu')
    state = wrapper.state_dict()
    assert model.weight.dtype == state['state'][0]['exp_avg_sq'].dtype == torch.float32
    # Two backwards made one step.
    assert state['state'][0]['step'] == 1


def test_a_state_of_mmengines_mixed_precision_goes_on():
    model, wrapper = build('Bfloat16OptimWrapper')
    for _ in range(2):
        wrapper.update_params(model(torch.ones(2, 4)).sum())
    _, other = build('Bfloat16OptimWrapper')
    other.load_state_dict({**wrapper.state_dict(), 'loss_scaler': dict(scale=65536.0)})
    states = [item.optimizer.state_dict()['state'][0] for item in (wrapper, other)]
    assert torch.equal(states[0]['exp_avg'], states[1]['exp_avg']) and states[1]['exp_avg'].any()


@pytest.mark.parametrize(
    ('capabilities', 'found'),
    [
        (dict(avx512_f=True, avx512_vl=True, avx512_bf16=False, amx_bf16=False), False),
        (dict(avx512_bf16=True), True),
        (dict(avx512_bf16=False, amx_bf16=True), True),
        (dict(neon=True, bf16=True), True),
        (dict(neon=True), False),
    ],
)
def test_instructions_for_bfloat16_have_their_names(monkeypatch, capabilities, found):
    monkeypatch.setattr(torch.cpu, 'get_capabilities', lambda: capabilities)
    assert processor_has_bfloat16() is found
