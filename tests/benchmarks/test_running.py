"""A run of cases: the rows that come of it."""

import pytest
import torch

from benchmarks import running
from benchmarks.cases import OperatorCase
from coc_core.errors import UserError

CASE = OperatorCase((2, 6, 4, 2, 8), 2, 2, rounds=3)


@pytest.fixture(autouse=True)
def short_samples(monkeypatch):
    monkeypatch.setattr('benchmarks.measuring.SAMPLE_SECONDS', 0.0)
    monkeypatch.setattr(running, 'bounds', lambda device, precisions: {p: dict(gemm=1e9, copy=1e8) for p in precisions})


def run(*cases, tell=lambda line: None, **changes):
    options = dict(precisions=('fp32', 'bf16'), impls=('auto',), reference=True, device=torch.device('cpu'), tell=tell)
    return list(running.run(cases or [CASE], **(options | changes)))[-1]


@pytest.fixture(scope='module')
def measured():
    told = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr('benchmarks.measuring.SAMPLE_SECONDS', 0.0)
        patch.setattr(running, 'bounds', lambda device, precisions: {p: dict(gemm=1e9, copy=1e8) for p in precisions})
        return run(tell=told.append), told


def test_every_precision_mode_and_candidate_has_a_row(measured):
    results, told = measured
    found = [(row['precision'], row['mode'], row['name']) for row in results['rows']]
    assert found == [(p, m, n) for p in ('fp32', 'bf16') for m in ('eval', 'train') for n in ('auto', 'reference')]
    assert set(results) == {'machine', 'bounds', 'rows'}
    assert [line for line in told if 'equality' in line] == [
        f'{CASE.label}, {precision}: equality with the reference form' for precision in ('fp32', 'bf16')
    ]


def test_numbers_of_a_row_belong_together(measured):
    for row in measured[0]['rows']:
        took = row['seconds_per_batch']
        assert len(row['seconds']) == 3 and took['min'] == min(row['seconds']) and took['max'] == max(row['seconds'])
        assert row['images_per_second'] == pytest.approx(2 / took['median'])
        assert row['bound_seconds'] == max(row['flops'] / 1e9, row['bytes'] / 1e8)
        assert row['bound_reached'] == pytest.approx(row['bound_seconds'] / took['median'])
        assert row['bandwidth_reached'] == pytest.approx(row['bytes'] / 1e8 / took['median'])
        assert row['kind'] == 'operator' and row['size'] == [6, 4] and row['batch_size'] == 2 and row['fits_on_chip']


def test_ratios_are_taken_round_by_round(measured):
    rows = {(row['precision'], row['mode'], row['name']): row for row in measured[0]['rows']}
    own, reference = (rows['fp32', 'train', name] for name in ('auto', 'reference'))
    ratios = [b / a for a, b in zip(own['seconds'], reference['seconds'], strict=True)]
    assert (own['speed_ratio']['min'], own['speed_ratio']['max']) == pytest.approx((min(ratios), max(ratios)))
    assert own['memory_ratio'] == pytest.approx(own['peak_memory_bytes'] / reference['peak_memory_bytes'])
    assert reference['speed_ratio'] is None and reference['memory_ratio'] is None


def test_what_was_measured_is_there_before_the_next_case(monkeypatch):
    results = running.run(
        [CASE, CASE], precisions=('fp32',), impls=('auto',), reference=False, device=torch.device('cpu'), tell=print
    )
    assert len(next(results)['rows']) == 2
    assert len(next(results)['rows']) == 4


def test_nothing_is_timed_that_is_not_equal(monkeypatch):
    def refuse(*_, **__):
        raise UserError('not equal')

    monkeypatch.setattr(running, 'check_case', refuse)
    monkeypatch.setattr(running, 'warm_up', lambda *_: pytest.fail('was timed'))
    with pytest.raises(UserError, match='not equal'):
        run()


def test_too_little_memory_is_one_sentence(monkeypatch):
    def warm_up(step, device):
        raise torch.OutOfMemoryError('CUDA out of memory')

    monkeypatch.setattr(running, 'warm_up', warm_up)
    with pytest.raises(
        UserError, match='operator, 2x6x4x2x8.* needs more memory than there is: choose a smaller batch'
    ):
        run(precisions=('fp32',))
