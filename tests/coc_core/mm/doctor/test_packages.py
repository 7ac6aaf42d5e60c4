"""Each fault of packages, by stand-ins, and what mends it."""

import sys
from importlib import metadata
from types import ModuleType

import pytest

from coc_core.mm import requirements
from coc_core.mm.doctor import packages
from coc_core.mm.doctor.findings import NOTE, OK, WRONG


def pretend_project(monkeypatch, dependency='timm>=1.0', python='>=3.11'):
    project = {'requires-python': python, 'dependencies': [dependency]}
    monkeypatch.setattr(packages, '_project', lambda: project)


def pretend_versions(monkeypatch, **versions):
    monkeypatch.setattr(packages, 'installed', versions.get)


def only(found):
    (finding,) = found
    return finding


@pytest.mark.parametrize(('wanted', 'state'), [('>=3.11,<4.0', OK), ('>=3.99', WRONG), ('>=3.8,<3.11', WRONG)])
def test_python(monkeypatch, wanted, state):
    pretend_project(monkeypatch, python=wanted)
    finding = only(packages.python())
    assert finding.state == state
    assert state == OK or f'is not among {wanted}: `make setup PYTHON=python3.11`' in finding.says


def test_what_the_project_asks_for_is_what_pyproject_says():
    project = packages._project()
    assert project['requires-python'].startswith('>=3.11') and 'timm>=1.0' in project['dependencies']


@pytest.mark.parametrize(
    ('version', 'says'),
    [
        (None, "is not installed: `make setup` or `pip install 'timm>=1.0'`"),
        ('0.9.16', "0.9.16 is too old: `make setup` or `pip install 'timm>=1.0'`"),
    ],
)
def test_a_missing_and_an_old_package(monkeypatch, version, says):
    pretend_project(monkeypatch)
    pretend_versions(monkeypatch, timm=version)
    finding = only(packages.needed())
    assert (finding.state, finding.says) == (WRONG, says)


def test_a_package_that_does_not_import(monkeypatch):
    pretend_project(monkeypatch)
    pretend_versions(monkeypatch, timm='1.0.31')
    monkeypatch.setitem(sys.modules, 'timm', None)
    finding = only(packages.needed())
    assert finding.state == WRONG and '1.0.31 does not import (ModuleNotFoundError' in finding.says


def test_a_torchvision_for_another_torch(monkeypatch):
    pretend_versions(monkeypatch, torch='2.12.1+cu130', torchvision='0.28.0')
    monkeypatch.setattr(metadata, 'requires', lambda name: ['numpy', 'torch (==2.13.0)', "torch<1; extra == 'old'"])
    finding = only(packages.torchvision())
    says = '0.28.0 is made for torch==2.13.0, not 2.12.1+cu130: `make setup` or `pip install torch==2.12.1 torchvision`'
    assert (finding.state, finding.says) == (WRONG, says)
    pretend_versions(monkeypatch, torch='2.13.0+cpu', torchvision='0.28.0')
    assert only(packages.torchvision()).state != WRONG


def test_a_torchvision_that_does_not_import_or_has_no_operators(monkeypatch):
    def broken():
        raise RuntimeError('operator torchvision::nms does not exist')

    monkeypatch.setattr(packages, '_torchvision_operators', broken)
    finding = only(packages.torchvision())
    assert finding.state == WRONG and 'operator torchvision::nms does not exist' in finding.says
    monkeypatch.setattr(packages, '_torchvision_operators', lambda: False)
    assert only(packages.torchvision()).state == NOTE
    pretend_versions(monkeypatch, torch='2.13.0')
    assert only(packages.torchvision()).says.startswith('is not installed')


def test_triton_may_be_missing(monkeypatch):
    pretend_versions(monkeypatch)
    assert only(packages.extra()).state == NOTE


def pretend_mm(monkeypatch, *distributions):
    monkeypatch.setattr(requirements, '_installed', lambda name: name.split('==')[0] in distributions)
    monkeypatch.setattr(metadata, 'version', lambda name: '9.0')


def test_both_families(monkeypatch):
    pretend_mm(monkeypatch, 'mmengine', 'onedl-mmcv')
    finding = only(packages.openmmlab())
    assert finding.state == WRONG and 'Both OpenMMLab families' in finding.says and 'pip uninstall' in finding.says
    assert finding.facts['mmengine'] == 'mmengine 9.0' and finding.facts['mmcv'] == 'onedl-mmcv 9.0'


def test_missing_and_broken_mm_packages(monkeypatch):
    pretend_mm(monkeypatch, 'onedl-mmengine', 'onedl-mmcv')

    def import_module(name):
        if name == 'mmcv':
            raise AssertionError('mmengine 9.0 is not compatible')

    monkeypatch.setattr(packages, 'find_spec', lambda name: name in ('mmengine', 'mmcv') or None)
    monkeypatch.setattr(packages, 'import_module', import_module)
    found = {finding.name: finding for finding in packages.openmmlab()}
    assert found['mm* packages'].says == 'the OneDL family' and found['mmengine'].state == OK
    assert found['mmcv'].state == WRONG and 'AssertionError: mmengine 9.0 is not compatible' in found['mmcv'].says
    assert found['mmdet'].state == NOTE and 'onedl-mmdetection==' in found['mmdet'].says
    pretend_mm(monkeypatch)
    monkeypatch.setattr(packages, 'find_spec', lambda name: None)
    assert next(iter(packages.openmmlab())).says == 'none: the backbone works without'
    assert not list(packages.mmcv_operators())


def test_mmcv_without_operators_and_with_those_of_another_torch(monkeypatch):
    mmcv = ModuleType('mmcv')
    mmcv.__path__ = []
    monkeypatch.setattr(packages, 'find_spec', lambda name: name == 'mmcv' or None)
    monkeypatch.setitem(sys.modules, 'mmcv', mmcv)
    monkeypatch.delitem(sys.modules, 'mmcv._ext', raising=False)
    finding = only(packages.mmcv_operators())
    assert finding.state == NOTE and 'without its compiled operators' in finding.says

    def broken(name):
        raise ImportError('undefined symbol: _ZN3c10')

    monkeypatch.setattr(packages, 'find_spec', lambda name: True)
    monkeypatch.setattr(requirements, 'import_module', broken)
    finding = only(packages.mmcv_operators())
    assert finding.state == WRONG and 'undefined symbol' in finding.says and '`pip ' in finding.says


def test_operators_that_compute_something_else(monkeypatch):
    ops = pytest.importorskip('mmcv.ops')
    assert only(packages.mmcv_operators()).state == OK
    nms = ops.nms
    monkeypatch.setattr(ops, 'nms', lambda boxes, scores, limit: nms(boxes, scores, 1.0))
    finding = only(packages.mmcv_operators())
    assert finding.state == WRONG and 'nms keeps boxes [0, 1, 2], not [0, 2]' in finding.says
