"""Each fault of a machine, by stand-ins, and what mends it."""

import os
import shutil
from collections import namedtuple

import pytest
import torch

from coc_core import compilers
from coc_core.mm.doctor import machine
from coc_core.mm.doctor.findings import NOTE, OK, WRONG

Usage = namedtuple('Usage', 'total used free')
GIB = 2**30


def only(found):
    (finding,) = found
    return finding


@pytest.mark.parametrize(('free', 'state'), [(2**26, WRONG), (8 * GIB, OK)])
def test_shared_memory_and_disk(monkeypatch, free, state):
    monkeypatch.setattr(shutil, 'disk_usage', lambda folder: Usage(9 * GIB, 9 * GIB - free, free))
    shared, disk = only(machine.shared_memory()), only(machine.disk())
    assert shared.state == disk.state == state
    if state == WRONG:
        assert shared.says.startswith('0.06 of 9.00 GiB free, too little') and '--shm-size=8g' in shared.says
        assert '--work-dir DIR' in disk.says


def test_a_system_without_shared_memory(monkeypatch, tmp_path):
    monkeypatch.setattr(machine, 'SHARED_MEMORY', tmp_path / 'shm')
    assert only(machine.shared_memory()).state == OK


def write(folder, **files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace('__', '.')).write_text(text)


@pytest.mark.parametrize('version', [1, 2])
def test_limits_of_control_groups(monkeypatch, tmp_path, version):
    own = tmp_path / 'own'
    monkeypatch.setattr(machine, 'CGROUPS', tmp_path)
    monkeypatch.setattr(machine, 'OWN_CGROUPS', own)
    assert machine.core_limit() is None and machine.memory_limit() is None
    if version == 2:
        own.write_text('0::/user/job\n')
        write(tmp_path / 'user', cpu__max='150000 100000\n', memory__max='max\n')
        write(tmp_path / 'user' / 'job', cpu__max='max 100000\n', memory__max=f'{3 * GIB}\n')
    else:
        own.write_text('3:cpu,cpuacct:/docker/1\n2:memory:/docker/1\n0::/\n')
        # In a container the folders are those of its own group.
        write(tmp_path / 'cpu', cpu__cfs_quota_us='150000\n', cpu__cfs_period_us='100000\n')
        write(tmp_path / 'memory', memory__limit_in_bytes=f'{3 * GIB}\n')
        write(tmp_path / 'cpu' / 'docker' / '1', cpu__cfs_quota_us='-1\n', cpu__cfs_period_us='100000\n')
    assert machine.core_limit() == 1.5 and machine.memory_limit() == 3 * GIB
    monkeypatch.setattr(machine, 'affinity', lambda: 64)
    assert only(machine.cores()).says.startswith('1.5 of ')
    assert only(machine.memory()).says.startswith('3.0 of ')


@pytest.mark.parametrize(
    ('named', 'started', 'state', 'says'),
    [
        (None, 64, WRONG, 'torch starts 64 on 2 cores: `export OMP_NUM_THREADS=2`'),
        ('many', 2, WRONG, "OMP_NUM_THREADS='many' is no number: `export OMP_NUM_THREADS=2`"),
        ('2', 2, OK, 'torch starts 2'),
    ],
)
def test_threads(monkeypatch, named, started, state, says):
    monkeypatch.setattr(machine, 'usable_cores', lambda: 2.0)
    monkeypatch.setattr(torch, 'get_num_threads', lambda: started)
    monkeypatch.delenv('OMP_NUM_THREADS', raising=False)
    if named is not None:
        monkeypatch.setenv('OMP_NUM_THREADS', named)
    finding = only(machine.threads())
    assert (finding.state, finding.says) == (state, says)


def test_compilers_and_headers(monkeypatch, tmp_path):
    for name in ('CC', 'CXX'):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv('PATH', str(tmp_path))
    monkeypatch.setattr(compilers.sysconfig, 'get_paths', lambda **options: {'include': str(tmp_path)})
    found = {finding.name: finding for finding in machine.compiler_tools()}
    assert {finding.state for finding in found.values()} == {NOTE}
    assert '`apt install gcc`' in found['C compiler'].says and '`apt install g++`' in found['C++ compiler'].says
    assert compilers.headers_command() in found['Python.h'].says
    assert 'a C compiler' in compilers.missing_for_triton()

    for name in ('clang', 'clang++', 'icx'):
        (tmp_path / name).write_text('#!/bin/sh\n')
        (tmp_path / name).chmod(0o755)
    assert 'Python.h' in compilers.missing_for_triton()
    (tmp_path / 'Python.h').touch()
    assert compilers.missing_for_triton() == ''
    assert [f.says for f in machine.compiler_tools()] == ['clang', 'clang++', 'found']
    monkeypatch.setenv('CC', 'icx')
    assert os.path.basename(compilers.c_compiler()) == 'icx'
    monkeypatch.setenv('CC', 'icc')
    assert compilers.c_compiler() is None
