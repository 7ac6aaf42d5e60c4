"""What is timed: each candidate's name, what it is compared with, and what a step does."""

import dataclasses
import re

import pytest
import torch
from torch import nn

from benchmarks import candidates
from benchmarks.candidates import check_case, model_candidates, model_step, operator_candidates
from benchmarks.cases import ModelCase, OperatorCase
from coc_core.errors import UserError

CPU = torch.device('cpu')
OPERATOR = OperatorCase((2, 6, 4, 2, 8), 2, 2)


def compared(found):
    return [(candidate.name, candidate.impl, candidate.reference) for candidate in found]


def test_models_stand_beside_their_reference_form_and_models_of_timm():
    case = ModelCase(('coc_tiny-1',), (32, 64), 1, peers=('resnet18',))
    found = model_candidates(case, mode='eval', precision='fp32', impls=('auto', 'plain'), reference=True, device=CPU)
    assert compared(found) == [
        ('coc_tiny-1', 'auto', 'coc_tiny-1 reference'),
        ('coc_tiny-1 reference', 'reference', None),
        ('coc_tiny-1 impl=plain', 'plain', 'coc_tiny-1 reference'),
        ('resnet18', None, None),
    ]
    own, literal, plain, peer = found
    assert own.flops == literal.flops == plain.flops != peer.flops
    assert peer.parameters == 11_689_512
    # The image, the logits and each weight, once.
    assert peer.bytes == 4 * (3 * 32 * 64 + 1000 + peer.parameters)


def test_mixers_of_ones_own_stand_beside_the_stock_layer(tmp_path, monkeypatch):
    (tmp_path / 'soft_mixer_timed.py').write_text(
        'from functools import partial\n'
        'from coc_core.layers import ClusterMixer\n'
        'class SoftMixer(ClusterMixer):\n'
        '    def __init__(self, *args, heat=1.0, **kwargs):\n'
        '        super().__init__(*args, **kwargs)\n'
        '        self.heat = heat\n'
        '    def assign(self, z_GMN):\n'
        '        return (z_GMN / self.heat).softmax(1)\n'
        'warm = partial(SoftMixer, heat=2.0)\n'
    )
    monkeypatch.syspath_prepend(tmp_path)
    built = []
    monkeypatch.setattr(
        candidates,
        'model_step',
        lambda model, *_: lambda: built.append([m.heat for m in model.modules() if hasattr(m, 'heat')]),
    )
    case = ModelCase(('coc_tiny',), (32, 64), 1, mixers=('soft_mixer_timed:SoftMixer', 'soft_mixer_timed:warm'))
    options = dict(precision='fp32', impls=('auto',), reference=True, device=CPU)
    for mode, dense in (('eval', False), ('train', True)):
        found = model_candidates(dataclasses.replace(case, dense=dense), mode=mode, **options)
        assert compared(found) == [
            ('coc_tiny', 'auto', 'coc_tiny reference'),
            ('coc_tiny reference', 'reference', None),
            ('coc_tiny soft_mixer_timed:SoftMixer', None, None),
            ('coc_tiny soft_mixer_timed:warm', None, None),
        ]
        assert found[0].parameters == found[2].parameters
        for candidate in found:
            candidate.step()
    assert [set(heats) for heats in built] == 2 * [set(), set(), {1.0}, {2.0}]


@pytest.mark.parametrize(
    ('mixer', 'sentence'),
    [
        ('DistanceMixer', 'name a module and a class in it, such as distance_mixer:DistanceMixer'),
        ('nowhere:Mixer', "No module named 'nowhere'. Name a module that Python finds"),
        ('coc_core.layers:Mixer', "module 'coc_core.layers' has no attribute 'Mixer'"),
    ],
)
def test_a_mixer_that_is_not_there_is_told(mixer, sentence):
    with pytest.raises(UserError, match=re.escape(sentence)):
        candidates.mixer_by_name(mixer)


def test_compiled_models_stand_beside_those_that_are_not(monkeypatch):
    monkeypatch.setattr(torch, 'compile', lambda forward: lambda images: forward(images))
    case = ModelCase(('coc_tiny-1',), (32, 64), 1, compiled=True)
    found = model_candidates(case, mode='eval', precision='fp32', impls=('auto',), reference=True, device=CPU)
    assert compared(found) == [
        ('coc_tiny-1', 'auto', 'coc_tiny-1 reference'),
        ('coc_tiny-1 reference', 'reference', None),
        ('coc_tiny-1 compiled', 'auto', 'coc_tiny-1 reference'),
        ('coc_tiny-1 impl=plain', 'plain', 'coc_tiny-1 reference'),
        ('coc_tiny-1 impl=plain compiled', 'plain', 'coc_tiny-1 reference'),
    ]
    monkeypatch.setattr(torch, 'compile', lambda forward: lambda images: 1.2 * forward(images))
    with pytest.raises(UserError, match='coc_tiny-1 compiled differs from coc_tiny-1 by'):
        model_candidates(case, mode='eval', precision='fp32', impls=('auto',), reference=True, device=CPU)


def test_without_the_reference_form_any_size_will_do():
    case = ModelCase(('coc_tiny',), (33, 40), 1, dense=True)
    options = dict(mode='train', precision='fp32', impls=('auto',), device=CPU)
    assert compared(model_candidates(case, reference=False, **options)) == [('coc_tiny', 'auto', None)]
    with pytest.raises(UserError, match='sizes that divide by 32, which 33x40 does not'):
        model_candidates(case, reference=True, **options)


def test_a_training_step_computes_under_autocast_and_adds_to_gradients_in_float32():
    model, seen = nn.Linear(3, 2), []

    def forward(images):
        seen.append(model(images))
        return seen[-1]

    step = model_step(model, forward, torch.randn(4, 3), 'train', 'bf16')
    assert model.training and model.weight.grad.eq(0).all()
    step()
    first = model.weight.grad.clone()
    step()
    assert seen[0].dtype == torch.bfloat16 and first.dtype == torch.float32 and first.ne(0).any()
    # The same images and the same gradients of the outputs every time.
    assert torch.equal(model.weight.grad, 2 * first)


def test_an_evaluation_step_keeps_nothing():
    model, seen = nn.Linear(3, 2), []
    model_step(model, lambda images: seen.append(model(images)), torch.randn(4, 3), 'eval', 'fp32')()
    assert not model.training and seen[0].dtype == torch.float32 and seen[0].is_inference()


@pytest.mark.parametrize(('precision', 'element_size'), [('fp32', 4), ('bf16', 2)])
def test_implementations_of_the_operator_stand_beside_the_reference_one(precision, element_size):
    values = 2 * 6 * 4 * 2 * 8 * element_size
    for mode, moved, times in (('eval', 3, 1), ('train', 8, 3)):
        options = dict(mode=mode, precision=precision, impls=('auto', 'plain'), device=CPU)
        found = operator_candidates(OPERATOR, reference=True, **options)
        assert compared(found) == [
            ('auto', 'auto', 'reference'),
            ('plain', 'plain', 'reference'),
            ('reference', 'reference', None),
        ]
        assert {candidate.bytes for candidate in found} == {moved * values}
        # Similarities and both sums: three products of 48 points and heads, 8 channels, and 4 centers, for each image.
        assert {candidate.flops for candidate in found} >= {times * 2 * 3 * 2 * 48 * 8 * 4}
        for candidate in found:
            candidate.step()
        assert compared(operator_candidates(OPERATOR, reference=False, **options)) == [
            ('auto', 'auto', None),
            ('plain', 'plain', None),
        ]


def test_an_impossible_shape_is_told():
    case = OperatorCase((1, 5, 5, 5, 2), 2, 3)
    with pytest.raises(UserError, match='does not divide into 3x3 regions'):
        operator_candidates(case, mode='eval', precision='fp32', impls=('auto',), reference=True, device=CPU)


def test_each_use_of_the_operator_and_each_model_is_compared(monkeypatch):
    uses, models = [], []
    monkeypatch.setattr(
        candidates, 'check_operator', lambda impl, device, precision, **use: uses.append((impl, *use.values()))
    )
    monkeypatch.setattr(candidates, 'check_model', lambda name, *_, **__: models.append(name))
    check_case(OPERATOR, precision='fp32', impls=('auto', 'plain'), device=CPU)
    assert uses == [('auto', 2, 8, 2, 2), ('plain', 2, 8, 2, 2)] and models == []
    uses.clear()
    check_case(ModelCase(('coc_tiny', 'coc_tiny-49'), (32, 32), 1), precision='fp32', impls=('auto',), device=CPU)
    assert models == ['coc_tiny', 'coc_tiny-49']
    assert ('auto', 4, 24, 2, 8) in uses and ('auto', 4, 24, 7, 8) in uses and len(set(uses)) == len(uses)
