"""The machine's rates, by a clock that is known, and what is said of it."""

from importlib import metadata

import pytest
import torch

from benchmarks import machine

CPU = torch.device('cpu')


@pytest.fixture
def clock(monkeypatch):
    """Small tensors; each call that is timed runs once and takes the next of these seconds."""
    seconds = []
    monkeypatch.setattr(machine, 'GEMM_SIDE', {'cpu': 10})
    monkeypatch.setattr(machine, 'COPY_BYTES', {'cpu': 400})

    def timed(call, device):
        call()
        return seconds.pop(0)

    monkeypatch.setattr(machine, 'seconds_per_call', timed)
    return seconds


def test_rates_are_those_of_the_best_try(clock):
    clock += [1.0, 0.7, 0.5, 0.8, 0.9, 0.6]
    assert machine.gemm_rate(CPU, 'bf16') == 2 * 10**3 / 0.5
    clock += [0.3, 0.2, 0.4, 0.5, 0.6]
    assert machine.copy_bandwidth(CPU) == 2 * 400 / 0.2


def test_a_slow_product_is_tried_once_more_only(clock):
    clock += [4.0, 5.0]
    assert machine.gemm_rate(CPU, 'fp16') == 2 * 10**3 / 4.0
    assert clock == []


def test_every_precision_has_its_bounds(clock):
    clock += [0.5] * machine.TRIES + [1.0] * (1 + machine.TRIES) + [2.0, 2.0]
    found = machine.bounds(CPU, ('fp32', 'bf16'))
    assert found == {'fp32': {'gemm': 2000.0, 'copy': 1600.0}, 'bf16': {'gemm': 1000.0, 'copy': 1600.0}}


def test_what_is_not_installed_has_no_version(monkeypatch):
    def version(name):
        if name == 'triton':
            raise metadata.PackageNotFoundError(name)
        return '9.9'

    monkeypatch.setattr(metadata, 'version', version)
    described = machine.describe(CPU)
    assert (described['timm'], described['triton'], described['gpu']) == ('9.9', None, None)
