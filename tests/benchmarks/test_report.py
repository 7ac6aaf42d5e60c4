"""Results as tables, and in files."""

import pytest

from benchmarks import report
from coc_core.errors import UserError


def row(name='coc_tiny', mode='eval', speed=None, memory=None, **changes):
    """A row of coc_tiny as `benchmarks.running` makes it."""
    spread = dict(median=0.5, min=0.4, max=0.6)
    return dict(
        case='classifier, 8 x 224x224', kind='model', name=name, impl='auto', size=[224, 224], mode=mode,
        precision='fp32', seconds=[0.5], seconds_per_batch=spread, images_per_second=16.0, peak_memory_bytes=2**21,
        flops=2 * 10**9, bytes=2**22, parameters=5570584, bound_seconds=0.1, bound_reached=0.2, bandwidth_reached=0.5,
        speed_ratio=speed and dict(median=speed, min=speed, max=speed), memory_ratio=memory,
    ) | changes  # fmt: skip


def results(*rows, device='cpu'):
    machine = dict(device=device, cpu='a CPU', cores=2, gpu=None, threads=1, date='2024-01-01')
    machine |= dict(torch='2.13.0', timm='1.0', triton=None, python='3.11')
    return dict(machine=machine, bounds={'fp32': dict(gemm=1e11, copy=1e10)}, rows=list(rows))


def test_every_case_has_a_table():
    alone = row('coc_tiny reference')
    operator = row('auto', 'train', kind='operator', case='operator, 2x6x4x2x8', parameters=None, size=[6, 4])
    text = report.render(results(row(speed=2.5, memory=0.1), alone, operator), markdown=True)
    assert text.startswith(
        'cpu: a CPU, 2 cores; 1 threads; torch 2.13.0, timm 1.0, triton none, python 3.11; 2024-01-01.'
    )
    assert 'fp32: 100 GFLOP/s in a square product, 10.0 GB/s in a copy.' in text
    assert 'classifier, 8 x 224x224, fp32, median of 1 rounds' in text
    lines = {
        tuple(cell.strip() for cell in line.strip('|').split('|')) for line in text.splitlines() if line[:1] == '|'
    }
    model = ('500.0 (400.0..600.0)', '16.0', '2.50 (2.50..2.50)', '2', '0.10', '2.0', '5,570,584', '100.0', '20%')
    assert ('coc_tiny', 'eval', *model) in lines
    assert sum(line[0] == 'coc_tiny reference' and line[4] == line[6] == '' for line in lines) == 1
    assert ('auto', 'forward and backward', '500.0 (400.0..600.0)', '', '2.0', '', '2.00', '4.0', '50%') in lines


def test_results_come_back_from_their_file(tmp_path):
    measured = results(row(speed=2.5, memory=0.1))
    report.check_writable(tmp_path / 'a.json')
    report.write(measured, tmp_path / 'a.json')
    assert report.read(tmp_path / 'a.json') == measured


@pytest.mark.parametrize('text', [None, '{', '[]', '{"machine": {}, "bounds": {}, "rows": []}'])
def test_a_file_without_results_is_told(tmp_path, text):
    path = tmp_path / 'a.json'
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match='a.json holds no results of this tool'):
        report.read(path)


def test_results_of_nothing_are_none(tmp_path):
    report.write(results(), tmp_path / 'a.json')
    with pytest.raises(UserError, match='holds no results'):
        report.read(tmp_path / 'a.json')


@pytest.mark.parametrize('name', ['', 'a.txt', 'nowhere/a.json'])
def test_a_place_that_cannot_be_written_to_is_told(tmp_path, name):
    with pytest.raises(UserError, match=r'name a .json file in a folder that exists'):
        report.check_writable(tmp_path / name)
