"""A built wheel is the whole project."""

import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ('coc_core', 'mmpretrain_plugin', 'mmdet_plugin', 'mmseg_plugin', 'pointcloud')


def test_the_wheel_carries_packages_configs_and_tools(tmp_path):
    command = [sys.executable, '-m', 'pip', 'wheel', '--no-deps', '--no-build-isolation', '-w', tmp_path, ROOT]
    subprocess.run([str(c) for c in command], check=True, capture_output=True)
    names = set(zipfile.ZipFile(next(tmp_path.glob('*.whl'))).namelist())
    for folder in PACKAGES:
        sources = {str(p.relative_to(ROOT)) for p in (ROOT / folder).rglob('*.py')}
        assert sources <= names
    for folder in ('configs', 'tools'):
        sources = {str(p.relative_to(ROOT)) for s in ('*.py', '*.sh') for p in (ROOT / folder).rglob(s)}
        assert {f'coc_core/.mim/{name}' for name in sources} <= names
    metafiles = {str(p.relative_to(ROOT)) for p in (ROOT / 'configs').rglob('metafile.yml')} | {'model-index.yml'}
    assert len(metafiles) == 5 and {f'coc_core/.mim/{name}' for name in metafiles} <= names


def test_nothing_imports_tools():
    for path in (path for folder in PACKAGES for path in (ROOT / folder).rglob('*.py')):
        assert 'import tools' not in path.read_text() and 'from tools' not in path.read_text()
