from __future__ import annotations

import sys
from importlib import metadata, util
from types import ModuleType

import pytest

from coc_core.mm import requirements
from coc_core.mm.requirements import MissingPackage, check_openmmlab, require


def pretend(monkeypatch: pytest.MonkeyPatch, distributions: set[str], modules: set[str]) -> None:
    def of_distribution(name: str) -> dict[str, str]:
        if name not in distributions:
            raise metadata.PackageNotFoundError(name)
        return {'Summary': 'Pretended.'}

    monkeypatch.setattr(metadata, 'metadata', of_distribution)
    monkeypatch.setattr(requirements, 'find_spec', lambda name: object() if name in modules else None)


def test_installed_family_passes() -> None:
    check_openmmlab('mmengine')
    if util.find_spec('mmpretrain'):
        check_openmmlab('mmpretrain')


def test_any_other_package_is_only_looked_for() -> None:
    check_openmmlab('json')
    with pytest.raises(MissingPackage, match='^mmrotate is not installed: run `make setup` or `pip install mmrotate`'):
        check_openmmlab('mmrotate')


def test_a_tool_ends_with_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        require('mmrotate')
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith('error: mmrotate is not installed')


def test_missing_package_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, {'mmengine', 'mmcv'}, {'mmengine', 'mmcv'})
    with pytest.raises(ImportError, match=r'^mmdet is not installed: run `make setup` or `pip .* mmdet==3.3.0`'):
        check_openmmlab('mmdet')
    pretend(monkeypatch, set(), set())
    with pytest.raises(ImportError, match='^mmengine is not installed: .* onedl-mmengine=='):
        check_openmmlab('mmpretrain')
    pretend(monkeypatch, {'onedl-mmengine'}, {'mmengine', 'mmpretrain'})
    with pytest.raises(ImportError, match='^mmcv is not installed'):
        check_openmmlab('mmpretrain')


def test_two_families_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, {'mmengine', 'onedl-mmengine', 'onedl-mmcv'}, {'mmengine', 'mmcv'})
    message = 'Both OpenMMLab families .*pip uninstall -y mmengine onedl-mmengine onedl-mmcv'
    with pytest.raises(ImportError, match=message):
        check_openmmlab('mmengine')


def test_mmcv_without_operators(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, {'mmengine', 'mmcv-lite'}, {'mmengine', 'mmcv', 'mmseg', 'mmpretrain'})
    monkeypatch.setitem(sys.modules, 'mmcv', ModuleType('mmcv'))
    sys.modules['mmcv'].__path__ = []
    monkeypatch.delitem(sys.modules, 'mmcv._ext', raising=False)
    check_openmmlab('mmpretrain')
    with pytest.raises(ImportError, match='without its compiled operators.*uninstall -y mmcv-lite.* mmcv==2.1.0'):
        check_openmmlab('mmseg')


def test_operators_of_another_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> None:
        raise ImportError('undefined symbol: _ZN3c10')

    pretend(monkeypatch, {'onedl-mmengine', 'onedl-mmcv'}, {'mmengine', 'mmcv', 'mmseg'})
    monkeypatch.setattr(requirements, 'import_module', broken)
    with pytest.raises(ImportError, match='do not fit the installed torch .*undefined symbol'):
        check_openmmlab('mmseg')
