"""The comparison that runs on a GPU, here on the CPU: right code passes, wrong code does not."""

import itertools
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch

from coc_core import VARIANTS
from coc_core.mm.doctor import comparison, examination, launching, shapes
from coc_core.mm.doctor.comparison import Case
from coc_core.mm.doctor.findings import OK, WRONG
from coc_core.mm.doctor.shapes import Shape, published_shapes
from coc_core.ops import cluster, dispatch
from coc_core.ops.dispatch import TABLE, Row

CPU = torch.device('cpu')
NOISE = itertools.count(1)
TINY = Shape('tiny stage 1', 1, 8, 8, 2, 8, 2, 2)


def only(found):
    (finding,) = found
    return finding


def test_shapes_are_those_of_the_variants_and_configs():
    published = published_shapes()
    known = {shape[1:] for shape in published}
    assert len(known) == len(published)
    for config in VARIANTS.values():
        for stage, stride in enumerate(config.strides):
            sizes = config.heads[stage], config.head_dim[stage], config.center_grid[stage], config.region_grid[stage]
            assert (shapes.BATCH, 224 // stride, 224 // stride, *sizes) in known
    # Mask R-CNN of coc_small-49 and Semantic FPN of coc_medium-25.
    assert (1, 200, 336, 4, 32, 7, 8) in known and (1, 16, 16, 12, 32, 5, 1) in known
    kernels = [shape.kernel for shape in published]
    number = len(set(kernels))
    assert len(set(kernels[:number])) == number < len(kernels)


@pytest.mark.parametrize('impl', ['cpu', 'reference'])
def test_equal_code_is_told_to_be_equal(impl):
    wanted = comparison.cases([TINY])
    assert {(case.dtype, case.denominator) for case in wanted} == set(
        itertools.product((torch.float32, torch.float16, torch.bfloat16), ('similarity', 'count'))
    )
    finding = only(comparison.compare_all(wanted, impl, CPU, 60))
    assert finding.state == OK and 'in 6 cases' in finding.says and finding.facts['of'] == 6


@pytest.mark.filterwarnings('ignore:invalid value:RuntimeWarning')
def test_the_kernels_interpreted():
    pytest.importorskip('triton')
    if torch.cuda.is_available():
        pytest.skip('They are compiled where there is a GPU.')
    case = Case(TINY, torch.float16, 'similarity')
    assert only(comparison.compare_all([case], 'triton', CPU, 60)).state == OK
    assert only(launching.bad_point('triton', CPU, [case._replace(dtype=torch.float32)])).state == OK


def pretend(monkeypatch, function):
    """Register code as ``impl='mine'``."""
    monkeypatch.setattr(dispatch, 'TABLE', dict(TABLE))
    dispatch.register(Row('mine', function))


class Scaled(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, forward, backward):
        ctx.backward = backward
        return x * forward

    @staticmethod
    def backward(ctx, grad):
        return grad * ctx.backward, None, None


@pytest.mark.parametrize(
    ('forward', 'backward', 'what'), [(1.001, 1, 'the output'), (1, 1.001, 'the gradient of points')]
)
def test_other_numbers_are_told(monkeypatch, forward, backward, what):
    def mine(points, *arguments, **options):
        out = cluster(points, *arguments, **options, impl='plain')
        return Scaled.apply(out, forward, backward)

    pretend(monkeypatch, mine)
    finding = only(comparison.compare_all([Case(TINY, torch.float32, 'count')], 'mine', CPU, 60))
    assert finding.state == WRONG and f"denominator 'count': {what} is off by" in finding.says
    assert 'model.backbone.impl=plain' in finding.says


def test_other_bits_errors_and_nan_are_told(monkeypatch):
    calls = itertools.count()

    def mine(*arguments, **options):
        number = next(calls)
        if number == 6:
            raise RuntimeError('out of resource: shared memory, Required: 270336')
        out = cluster(*arguments, **options, impl='plain')
        return out * torch.nan if number in (2, 3) else out * (1 + number * 1e-6)

    pretend(monkeypatch, mine)
    wanted = [Case(TINY, torch.float32, 'count')] * 4
    finding = only(comparison.compare_all(wanted, 'mine', CPU, 60))
    assert finding.facts['wrong'] == 4
    bits, nan, bits_again, error = finding.facts['told']
    assert 'a second run has other bits in the output' in bits and 'a second run' in bits_again
    assert 'the output is off by nan' in nan
    assert 'it stops with RuntimeError: out of resource' in error


def test_points_near_a_tie_are_left_out(monkeypatch):
    # Four centers of two points, so that each window is there twice, and all points lie between two centers.
    tied = Shape('tied', 1, 2, 2, 1, 4, 2, 1)._replace(height=1, width=2)
    finding = only(comparison.compare_all([Case(tied, torch.float32, 'similarity')], 'plain', CPU, 60))
    assert finding.facts['near_ties'] == 2 and finding.facts['left_out'] == 1 and finding.state == OK
    # A point that joins another center for want of accuracy is no fault: near means as near as this.
    monkeypatch.setattr(comparison, 'NEAR_TIE', 10.0)
    keep, near, groups = comparison._clear(Case(TINY, torch.float32, 'count'), torch.randn(1, 8, 8, 2, 2, 8))
    assert not keep.any() and (near, groups) == (8 * 8 * 2, 8)


def test_a_group_that_is_left_out_decides_nothing(monkeypatch):
    factor = torch.ones(1, 8, 8, 2, 1)
    factor[0, :4, :4, 0] = 2
    pretend(monkeypatch, lambda *a, **options: factor * cluster(*a, **options, impl='plain'))
    case = Case(TINY, torch.float32, 'count')
    assert 'the output is off by' in comparison.compare(case, 'mine', CPU).wrong
    monkeypatch.setattr(comparison, '_clear', lambda case, both: (factor.eq(1).float(), 1, 1))
    assert comparison.compare(case, 'mine', CPU) == ('', 1, 1)


def test_what_is_left_for_want_of_time_is_told():
    finding = only(comparison.compare_all(comparison.cases([TINY]), 'plain', CPU, -1))
    assert finding.state == OK and '6 more were left for want of time' in finding.says


def test_a_dead_gpu_ends_the_comparison(monkeypatch):
    monkeypatch.setattr(comparison, 'compare', lambda *arguments: 1 / 0)
    monkeypatch.setattr(comparison, 'is_dead', lambda device: True)
    finding = only(comparison.compare_all(comparison.cases([TINY]), 'plain', CPU, 60))
    assert finding.facts['cases'] == 1 and 'takes no further call after this' in finding.says


def test_a_bad_point_that_spreads_or_hides_is_told(monkeypatch):
    def spreads(points, *arguments, **options):
        return cluster(points, *arguments, **options, impl='plain') + 0 * points.mean()

    def hides(points, values, *arguments, **options):
        return cluster(points.nan_to_num(posinf=1), values.nan_to_num(posinf=1), *arguments, **options, impl='plain')

    cases = [Case(TINY, torch.float32, 'similarity')]
    assert only(launching.bad_point('plain', CPU, cases)).state == OK
    with monkeypatch.context() as patch:
        pretend(patch, spreads)
        assert 'nan in points' in only(launching.bad_point('mine', CPU, cases)).says
    pretend(monkeypatch, hides)
    finding = only(launching.bad_point('mine', CPU, cases))
    assert finding.state == WRONG and len(finding.facts['told']) == 4
    assert 'the output of that point is finite' in finding.says


def pretend_cuda(monkeypatch):
    """Streams and graphs that do nothing: what is called within them runs at once, and a replay changes nothing."""
    nothing = SimpleNamespace(wait_stream=lambda other: None, replay=lambda: None)
    for name in ('Stream', 'CUDAGraph', 'current_stream', 'synchronize'):
        monkeypatch.setattr(torch.cuda, name, lambda *arguments: nothing)
    for name in ('stream', 'graph'):
        monkeypatch.setattr(torch.cuda, name, lambda each: nullcontext())


def test_streams_and_graphs(monkeypatch):
    pretend_cuda(monkeypatch)
    cases = [Case(TINY, torch.float32, 'similarity')]
    assert only(launching.side_stream('plain', CPU, cases)).state == OK
    # What was captured is not computed again from the new inputs.
    finding = only(launching.graph_replay('plain', CPU, cases))
    assert finding.state == WRONG and 'other bits than without a graph' in finding.says
    inputs_of = launching.inputs_of
    monkeypatch.setattr(launching, 'inputs_of', lambda case, device, seed=0: inputs_of(case, device))
    assert only(launching.graph_replay('plain', CPU, cases)).state == OK

    calls = itertools.count()
    pretend(monkeypatch, lambda *a, **options: cluster(*a, **options, impl='plain') + next(calls))
    finding = only(launching.side_stream('mine', CPU, cases))
    assert finding.state == WRONG and 'other bits than on the default stream' in finding.says


def test_mmcv_on_the_device(monkeypatch):
    ops = pytest.importorskip('mmcv.ops')
    pytest.importorskip('mmcv._ext')
    assert only(launching.detection_operators(CPU)).state == OK
    nms, align, calls = ops.nms, ops.roi_align, itertools.count()
    monkeypatch.setattr(ops, 'nms', lambda boxes, scores, limit: nms(boxes, scores, limit / (1 + next(calls))))
    monkeypatch.setattr(ops, 'roi_align', lambda *arguments: align(*arguments) + next(calls))
    assert 'RoIAlign and nms of mmcv differ' in only(launching.detection_operators(CPU)).says


def test_advice():
    assert launching.advice('triton', [2.0, 4.5]) == (
        'triton is 3.0x as fast as plain here (2.0x to 4.5x in 2 cases, forward and backward): leave impl=auto'
    )
    assert 'set `--cfg-options model.backbone.impl=plain`' in launching.advice('triton', [0.5, 0.9])


@pytest.mark.parametrize('compare', [comparison.compare_norms, comparison.compare_mlps])
def test_layers_are_compared_in_each_precision(monkeypatch, compare):
    pytest.importorskip('triton')
    monkeypatch.setattr(comparison, 'NORM_WIDTHS', [6, 33])
    monkeypatch.setattr(comparison, 'MLP_WIDTHS', {6: 48, 33: 70})
    monkeypatch.setattr(comparison, 'LAYER_MAP', (2, 5, 3))
    # The interpreter cuts bfloat16 off.
    monkeypatch.setattr(comparison, 'DTYPES', (torch.float32, torch.float16))
    found = only(compare('triton', CPU))
    assert found.state == OK and 'in 4 cases' in found.says


@pytest.mark.parametrize(
    ('wrong', 'reason'),
    [
        (lambda layer, x, *scale: layer.forward_plain(x) * 1.01, '32 channels, float32: the output is off by'),
        (lambda layer, x, *scale: layer.forward_plain(x) + next(NOISE), '32 channels, float32: a second run has other'),
        (lambda layer, x, *scale: layer.forward_plain(x.detach()) + 0 * x, 'the gradient of the map is off by'),
    ],
)
@pytest.mark.parametrize(('name', 'compare'), [('norm', comparison.compare_norms), ('mlp', comparison.compare_mlps)])
def test_a_layer_that_is_wrong_is_told(monkeypatch, name, compare, wrong, reason):
    rows = Row('cpu', wrong, device='cpu', compiled=False), TABLE[name][-1]
    monkeypatch.setattr(dispatch, 'TABLE', {**TABLE, name: rows})
    monkeypatch.setattr(comparison, 'NORM_WIDTHS', [32])
    monkeypatch.setattr(comparison, 'MLP_WIDTHS', {32: 256})
    found = only(compare('cpu', CPU))
    assert found.name == name
    assert found.state == WRONG and reason in found.says and 'impl=plain' in found.says


def test_the_examination_of_a_device(monkeypatch):
    monkeypatch.setattr(shapes, 'published_shapes', lambda: [TINY])
    monkeypatch.setattr(examination, 'SPEED_BATCH', 1)
    monkeypatch.setattr(launching, 'MEASURED_SECONDS', 0.01)
    monkeypatch.setattr(comparison, 'NORM_WIDTHS', [32])
    monkeypatch.setattr(comparison, 'MLP_WIDTHS', {32: 256})
    found = {finding.name: finding for finding in examination.examine_operator('cpu', 'cpu')}
    assert {'equality', 'norm', 'mlp', 'one bad point', 'speed'} <= set(found)
    assert {finding.state for finding in found.values()} == {OK}
    assert len(found['speed'].facts['rows']) == 6 and found['speed'].facts['rows'][0]['cpu_ms'] > 0


def test_what_runs_on_a_gpu_is_asked_for(monkeypatch):
    monkeypatch.setattr(examination, 'PROBES', ())
    monkeypatch.setattr(examination, '_has_kernels', lambda: True)
    monkeypatch.setattr(examination, 'examine_operator', lambda impl, device: [(impl, device)])
    assert list(examination.examine(on_gpu=True)) == [('triton', 'cuda')]
    assert list(examination.examine(on_gpu=False)) == []
