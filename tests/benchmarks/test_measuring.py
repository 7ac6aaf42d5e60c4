"""Samples, turns, ratios and memory."""

import os
import sys
import time
from pathlib import Path

import pytest
import torch

from benchmarks import measuring

CPU = torch.device('cpu')


@pytest.mark.parametrize(
    ('seconds', 'timed', 'calls'),
    [
        # The first call is slower; of three more the fastest counts, and four of these make a sample.
        ([0.9, 0.07, 0.05, 0.06], 4, 4),
        ([3.0], 1, 1),
        ([0.9, 0.8, 0.7, 0.9], 4, 1),
    ],
)
def test_short_calls_are_repeated_until_a_sample_is_long_enough(monkeypatch, seconds, timed, calls):
    clock = iter(seconds)
    monkeypatch.setattr(measuring, 'seconds_per_call', lambda call, device: next(clock))
    assert measuring.warm_up(lambda: None, CPU) == calls
    assert len(seconds) - len(list(clock)) == timed


def test_calls_take_turns():
    made = []
    calls = {name: lambda name=name: made.append(name) for name in 'ab'}
    seconds = measuring.interleave(calls, {'a': 1, 'b': 2}, 2, CPU)
    assert ''.join(made) == 'abbabb'
    assert {name: len(samples) for name, samples in seconds.items()} == {'a': 2, 'b': 2}


def test_median_and_range():
    assert measuring.median_and_range([4.0, 1.0, 2.0, 3.0]) == {'median': 2.5, 'min': 1.0, 'max': 4.0}


def test_ratios_are_paired():
    assert measuring.paired_ratios([2.0, 9.0, 4.0], [1.0, 3.0, 4.0]) == {'median': 2.0, 'min': 1.0, 'max': 3.0}
    with pytest.raises(ValueError):
        measuring.paired_ratios([2.0, 9.0], [1.0])


def test_peak_memory_of_known_allocations():
    def call():
        first = torch.empty(1000, 250)
        second = torch.empty(500, 250)
        del first
        return second, torch.empty(100, 250)

    assert measuring.peak_memory(call, CPU) == 1500 * 250 * 4


def test_what_is_written_while_memory_is_measured_is_shown_only_with_an_error(capfd):
    measuring.peak_memory(lambda: os.write(2, b'chatter\n'), CPU)
    assert capfd.readouterr().err == ''

    def fail():
        os.write(2, b'the reason\n')
        raise KeyError('x')

    with pytest.raises(KeyError):
        measuring.peak_memory(fail, CPU)
    assert 'the reason' in capfd.readouterr().err


@pytest.mark.skipif(sys.platform != 'linux', reason='reads /proc')
def test_memory_of_the_process_is_in_bytes():
    with open('/proc/self/status') as status:
        fields = dict(line.split(':', 1) for line in status)
    resident = 1024 * int(fields['VmRSS'].split()[0])
    # The kernel counts the pages of a thread in batches.
    assert 0.95 * resident <= measuring.process_memory(CPU) < 2 * 1024 * int(fields['VmHWM'].split()[0])


def test_busy_processes_compute_and_end():
    me = os.getpid()

    def children():
        return Path(f'/proc/{me}/task/{me}/children').read_text().split()

    before = set(children())
    with measuring.busy_processes(2):
        new = set(children()) - before
        time.sleep(1.0)
        ticks = [sum(map(int, Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[11:13])) for pid in new]
    assert len(new) == 2 and min(ticks) > 0
    assert not set(children()) & new
