"""Which operators of mmcv a machine compiles, and what it takes."""

import importlib.util
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[3] / 'tools' / 'dev' / 'cuda_operators.py'
spec = importlib.util.spec_from_file_location('cuda_operators', TOOL)
cuda_operators = importlib.util.module_from_spec(spec)
# Dataclasses look their module up.
sys.modules['cuda_operators'] = cuda_operators
spec.loader.exec_module(cuda_operators)


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Pretend a machine: its GPUs, its CUDA compiler, and what the user sets."""

    def pretend(gpus=(), nvcc=None, cuda='13.0', **variables):
        for name in ('FORCE_CUDA', 'TORCH_CUDA_ARCH_LIST', 'CUDA_PATH', 'CUDA_VISIBLE_DEVICES'):
            monkeypatch.setenv(name, variables.get(name, ''))
        torch = tmp_path / 'modules' / 'torch.py'
        torch.parent.mkdir(exist_ok=True)
        torch.write_text(TORCH.format(cuda=cuda, build=f'cu{cuda}' if cuda else 'cpu', gpus=list(gpus)))
        monkeypatch.setenv('PYTHONPATH', str(torch.parent))
        toolkit = tmp_path / 'toolkit'
        compiler = toolkit / 'bin' / 'nvcc'
        compiler.parent.mkdir(parents=True, exist_ok=True)
        compiler.write_text(f'#!/bin/sh\necho "Cuda compilation tools, release {nvcc}, V{nvcc}.88"\n')
        compiler.chmod(0o755 if nvcc else 0o644)
        monkeypatch.setenv('CUDA_HOME', str(toolkit))
        return cuda_operators.target(sys.executable)

    return pretend


TORCH = """
__version__ = '2.13.0+{build}'
class version: cuda = {cuda!r}
class cuda:
    get_device_capability = {gpus}.__getitem__
    device_count = {gpus}.__len__
    def is_available(): return bool({gpus})
"""
A100, H100 = (8, 0), (9, 0)


def test_what_is_compiled_is_that_of_the_gpus_in_sight_or_named(machine):
    assert machine().key == '2.13.0+cu13.0'
    assert machine(TORCH_CUDA_ARCH_LIST='9.0').key == '2.13.0+cu13.0'
    assert machine([H100, A100, H100]).key == '2.13.0+cu13.0-gpu-8.0-9.0'
    assert machine([H100], TORCH_CUDA_ARCH_LIST='8.0;8.6 9.0+PTX').key == '2.13.0+cu13.0-gpu-8.0-8.6-9.0+PTX'
    assert machine([H100], TORCH_CUDA_ARCH_LIST='native').key == '2.13.0+cu13.0-gpu-9.0'
    assert machine(FORCE_CUDA='1', TORCH_CUDA_ARCH_LIST='9.0').key == '2.13.0+cu13.0-gpu-9.0'


def test_more_gpus_take_longer_to_compile_for(machine):
    targets = machine(), machine([H100]), machine([A100, H100])
    assert targets[0].core_seconds < targets[1].core_seconds < targets[2].core_seconds


def served(kind):
    return cuda_operators.serve(kind, sys.executable)


def test_operators_for_cpus_alone_do_not_serve_where_those_for_gpus_can_be_compiled(machine):
    for_cpus, for_h100 = machine().key, machine([H100]).key
    machine(nvcc='13.0')
    assert served(for_cpus) and served(for_h100)
    # Nothing better can be had without CUDA's compiler, or with that of another CUDA.
    for compiler in (None, '12.8'):
        machine([H100], compiler)
        assert served(for_cpus) and served(for_h100)
    machine([H100], '13.1')
    assert not served(for_cpus) and served(for_h100)
    machine([A100], '13.0')
    assert served(for_h100)
    machine([A100], '13.0', TORCH_CUDA_ARCH_LIST='8.0')
    assert not served(for_h100)
    machine(FORCE_CUDA='1')
    assert not served(for_cpus) and served(for_h100)


def test_what_is_missing_to_compile_for_gpus_is_one_sentence(machine):
    def lacks(*arguments, **variables):
        return cuda_operators.lacks(machine(*arguments, **variables))

    forced = dict(FORCE_CUDA='1', TORCH_CUDA_ARCH_LIST='9.0')
    assert lacks() == lacks([H100], '13.2') == lacks((), '13.0', **forced) == lacks((), None, cuda=None) == ''
    assert 'set TORCH_CUDA_ARCH_LIST, 9.0 for an H100' in lacks((), '13.0', FORCE_CUDA='1')
    assert 'built with CUDA, and this is 2.13.0+cpu' in lacks((), '13.0', None, **forced)
    assert '/usr/local/cuda have none' in lacks([H100]) and 'CUDA_VISIBLE_DEVICES= make setup' in lacks([H100])
    assert 'toolkit/bin/nvcc is of CUDA 12.8' in lacks([H100], '12.8')
    assert 'leave FORCE_CUDA out' in lacks((), '12.8', **forced)


def test_headers_that_a_toolkit_leaves_out_come_from_the_wheels(tmp_path, monkeypatch):
    folder = tmp_path / 'nvidia' / 'cu13' / 'include'
    folder.mkdir(parents=True)
    monkeypatch.delenv('CPATH', raising=False)
    assert cuda_operators.header_path(tmp_path) == str(folder)
    monkeypatch.setenv('CPATH', '/mine')
    assert cuda_operators.header_path(tmp_path) == f'/mine:{folder}'
