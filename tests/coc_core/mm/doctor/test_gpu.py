"""What is told of GPUs that torch sees or does not see, by stand-ins: no GPU was at hand."""

from types import SimpleNamespace

import pytest
import torch

from coc_core.mm.doctor import examination, gpu
from coc_core.mm.doctor.findings import NOTE, OK, WRONG
from coc_core.ops.triton import trial

ALL = ['sm_75', 'sm_80', 'sm_86', 'sm_90', 'sm_100', 'sm_120']


@pytest.fixture(autouse=True)
def forget():
    """What is pretended of a GPU is remembered for a process."""
    yield
    trial._lacks.cache_clear()


@pytest.mark.parametrize(
    ('architectures', 'capability', 'runs'),
    [
        (ALL, (9, 0), True),
        (ALL, (8, 9), True),
        (ALL, (7, 0), False),
        (['sm_80'], (9, 0), False),
        (['compute_80'], (9, 0), True),
        (['compute_100'], (9, 0), False),
        (['sm_90a'], (9, 0), True),
        (['sm_100a'], (10, 3), False),
        (['sm_100'], (10, 3), True),
        ([], (9, 0), False),
    ],
)
def test_which_gpus_code_runs_on(architectures, capability, runs):
    assert gpu.covers(architectures, capability) == runs


def pretend_driver(monkeypatch, tmp_path, words='NVIDIA H100 80GB HBM3, 550.54.15\n'):
    """An nvidia-smi that says this of the GPUs, and all else that is on PATH hidden."""
    tool = tmp_path / 'nvidia-smi'
    tool.write_text(f'#!/bin/sh\nprintf "{words}"\n')
    tool.chmod(0o755)
    monkeypatch.setenv('PATH', str(tmp_path))
    monkeypatch.delenv('CUDA_VISIBLE_DEVICES', raising=False)


def pretend_cuda(monkeypatch, capability=(9, 0), version='13.0'):
    major, minor = capability
    properties = SimpleNamespace(
        name='NVIDIA H100 80GB HBM3', major=major, minor=minor, total_memory=80 * 2**30, multi_processor_count=132,
        shared_memory_per_block_optin=232448,
    )  # fmt: skip
    monkeypatch.setattr(torch.version, 'cuda', version)
    for name, value in dict(
        is_available=True, device_count=1, get_arch_list=ALL, get_device_properties=properties,
        get_device_capability=capability,
    ).items():  # fmt: skip
        monkeypatch.setattr(torch.cuda, name, lambda *a, value=value: value)
    trial._lacks.cache_clear()
    monkeypatch.setattr(torch.distributed, 'is_nccl_available', lambda: True)
    monkeypatch.setattr(torch.cuda.nccl, 'version', lambda: (2, 27, 3))


def found():
    return {finding.name: finding for finding in gpu.gpus()}


def without_cuda(monkeypatch, version=None):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    monkeypatch.setattr(torch.version, 'cuda', version)


def test_no_gpu_is_no_fault(monkeypatch, tmp_path):
    without_cuda(monkeypatch)
    pretend_driver(monkeypatch, tmp_path, words='')
    assert (found()['GPU'].state, found()['GPU'].says) == (OK, 'none')


def test_gpus_that_torch_does_not_see(monkeypatch, tmp_path):
    def init():
        raise RuntimeError('The NVIDIA driver on your system is too old (found version 12040)')

    pretend_driver(monkeypatch, tmp_path)
    without_cuda(monkeypatch)
    assert found()['GPU'].state == WRONG and 'without CUDA: `make setup` without TORCH=cpu' in found()['GPU'].says
    without_cuda(monkeypatch, '13.0')
    monkeypatch.setattr(torch.cuda, 'init', init)
    assert found()['GPU'].state == WRONG and 'driver on your system is too old' in found()['GPU'].says
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '')
    assert found()['GPU'].state == NOTE


def test_a_gpu_with_all_that_belongs_to_it(monkeypatch, tmp_path):
    pretend_driver(monkeypatch, tmp_path)
    pretend_cuda(monkeypatch)
    monkeypatch.setenv('TRITON_INTERPRET', '0')
    monkeypatch.setattr(gpu.compilers, 'missing_for_triton', lambda: '')
    told = found()
    assert told['GPU 0'].says == 'NVIDIA H100 80GB HBM3, capability 9.0, 80 GiB, 227 KiB shared memory per block'
    assert told['driver'].says == '550.54.15; NCCL 2.27.3' and told['driver'].facts['nccl'] == [2, 27, 3]
    assert told['kernels'].state == OK


@pytest.mark.filterwarnings('ignore:The kernels need a GPU')
def test_a_gpu_that_kernels_are_not_for(monkeypatch, tmp_path):
    pretend_driver(monkeypatch, tmp_path)
    pretend_cuda(monkeypatch, (7, 5))
    monkeypatch.setenv('TRITON_INTERPRET', '0')
    monkeypatch.setattr(gpu.compilers, 'missing_for_triton', lambda: '')
    told = found()
    assert told['GPU 0'].state == OK and told['kernels'].state == NOTE
    assert 'capability 8.0, and this one has 7.5' in told['kernels'].says
    monkeypatch.setattr(torch.cuda, 'current_device', lambda: 0)
    assert not examination._has_kernels()
    pretend_cuda(monkeypatch)
    assert examination._has_kernels()


def test_what_is_wrong_around_a_gpu(monkeypatch, tmp_path):
    ops = pytest.importorskip('mmcv.ops')
    pretend_driver(monkeypatch, tmp_path)
    pretend_cuda(monkeypatch, (6, 1))
    monkeypatch.setattr(gpu.compilers, 'missing_for_triton', lambda: 'Triton needs a C compiler')
    monkeypatch.setenv('TRITON_INTERPRET', '0')
    monkeypatch.setattr(ops, 'get_compiling_cuda_version', lambda: 'not available')
    told = found()
    assert told['GPU 0'].state == WRONG and 'has capability 6.1, and torch is built for sm_75' in told['GPU 0'].says
    assert (told['kernels'].state, told['kernels'].says) == (WRONG, 'Triton needs a C compiler')
    assert told['mmcv on the GPU'].state == WRONG and 'compiled for CPUs alone' in told['mmcv on the GPU'].says
    monkeypatch.setenv('TRITON_INTERPRET', '1')
    assert '`unset TRITON_INTERPRET`' in found()['kernels'].says
    monkeypatch.setattr(gpu, 'find_spec', lambda name: None if name == 'triton' else object())
    assert 'pip install triton' in found()['kernels'].says

    monkeypatch.setattr(ops, 'get_compiling_cuda_version', lambda: '13.0')
    assert found()['mmcv on the GPU'].says == 'CUDA 13.0, architectures not told (no cuobjdump)'
    tool = tmp_path / 'cuobjdump'
    tool.write_text('#!/bin/sh\necho "ELF file 1: a.$1.sm_80.cubin"\n')
    tool.chmod(0o755)
    rebuild = '`FORCE_CUDA=1 TORCH_CUDA_ARCH_LIST="6.1" make setup`'
    assert found()['mmcv on the GPU'].state == WRONG and rebuild in found()['mmcv on the GPU'].says
    pretend_cuda(monkeypatch, (9, 0))
    # PTX of an older architecture runs on a newer GPU.
    assert found()['mmcv on the GPU'].says == 'CUDA 13.0, compute_80 sm_80'


def test_the_tool_that_lists_architectures_comes_with_triton(monkeypatch, tmp_path):
    pretend_driver(monkeypatch, tmp_path)
    tool = tmp_path / 'triton' / 'backends' / 'nvidia' / 'bin' / 'cuobjdump'
    tool.parent.mkdir(parents=True)
    tool.write_text('#!/bin/sh\necho "ELF file 1: a.$1.sm_90.cubin"\n')
    tool.chmod(0o755)
    triton = SimpleNamespace(origin=str(tmp_path / 'triton' / '__init__.py'))
    monkeypatch.setattr(gpu, 'find_spec', lambda name: triton)
    assert gpu.architectures_of('a library') == ['compute_90', 'sm_90']
