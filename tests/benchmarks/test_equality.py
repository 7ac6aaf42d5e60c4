"""An implementation that computes something else is refused; one that breaks a tie otherwise is not."""

import pytest
import torch

from benchmarks.candidates import context_cluster
from benchmarks.equality import UnequalError, check_model, check_operator, relative_difference
from coc_core.errors import UserError
from coc_core.ops import cluster, dispatch, implementations
from coc_core.ops.cpu.slabs import SlabClustering

CPU = torch.device('cpu')
OPTIONS = dict(heads=3, dim=5, center_grid=3, region_grid=2)


@pytest.fixture
def in_place_of_cpu(monkeypatch):
    def put(function):
        monkeypatch.setitem(dispatch.TABLE, 'cluster', (dispatch.Row('cpu', function), *dispatch.TABLE['cluster'][2:]))

    return put


@pytest.mark.parametrize('impl', implementations())
def test_every_implementation_is_equal(impl):
    if impl == 'triton':
        pytest.skip('needs a GPU')
    check_operator(impl, CPU, 'fp16', **OPTIONS)


def test_a_wrong_operator_is_refused(in_place_of_cpu):
    in_place_of_cpu(lambda *tensors, **options: 1.001 * cluster(*tensors, impl='plain', **options))
    sentence = (
        r"impl='cpu' of the clustering operator is not equal .*\(denominator 'similarity', 3 heads of 5, 9 centers\)"
    )
    with pytest.raises(UnequalError, match=sentence):
        check_operator('cpu', CPU, 'fp32', **OPTIONS)


def test_one_tie_that_is_broken_otherwise_is_forgiven(in_place_of_cpu):
    calls = []

    def wrong_at_first(*tensors, **options):
        calls.append(options)
        return (1.1 if len(calls) == 1 else 1.0) * cluster(*tensors, impl='plain', **options)

    in_place_of_cpu(wrong_at_first)
    check_operator('cpu', CPU, 'fp32', **OPTIONS)
    # Two precisions, two denominators, and the one that was tried again.
    assert len(calls) == 5


def test_an_operator_that_cannot_be_run_is_told():
    with pytest.raises(UserError, match="impl='fast' cannot be run here: impl='fast' is unknown"):
        check_operator('fast', CPU, 'fp32', **OPTIONS)


def test_a_model_with_a_wrong_gradient_is_refused(monkeypatch):
    backward = SlabClustering.backward
    monkeypatch.setattr(SlabClustering, 'backward', lambda *arguments: 0 * backward(*arguments))
    model = context_cluster('coc_tiny', 'auto', dense=False)
    with pytest.raises(UnequalError, match="coc_tiny with impl='auto' is not equal to the reference model"):
        check_model('coc_tiny', model, 'auto', CPU, batch_size=1, size=(32, 32))


def test_what_is_not_finite_is_infinitely_far():
    assert relative_difference(torch.tensor([1.0, float('nan')]), torch.ones(2)) == float('inf')
    assert relative_difference(torch.tensor([3.0, 0.0]), torch.tensor([0.0, 4.0])) == 1.25
