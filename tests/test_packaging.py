"""A built wheel is the whole project, and works away from the checkout."""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ('coc_core', 'mmpretrain_plugin', 'mmdet_plugin', 'mmseg_plugin', 'pointcloud')


def build(source, out, kind):
    """Build a wheel or an sdist, as `python -m build` does, but with the backend that is installed."""
    command = [sys.executable, '-m', 'hatchling', 'build', '--target', kind, '--directory', out]
    subprocess.run([str(c) for c in command], cwd=source, check=True, capture_output=True)
    return next(out.glob('*.whl' if kind == 'wheel' else '*.tar.gz'))


@pytest.fixture(scope='module')
def wheel(tmp_path_factory):
    """A wheel that was built from an sdist, as those that are handed out."""
    folder = tmp_path_factory.mktemp('dist')
    shutil.unpack_archive(build(ROOT, folder, 'sdist'), folder)
    return build(next(path for path in folder.iterdir() if path.is_dir()), folder, 'wheel')


def test_the_wheel_works_away_from_the_checkout(wheel, tmp_path):
    command = [sys.executable, '-m', 'pip', 'install', '--no-deps', '--target', tmp_path / 'installed', wheel]
    subprocess.run([str(c) for c in command], check=True, capture_output=True)
    variables = {**os.environ, 'PYTHONPATH': str(tmp_path / 'installed')}
    smoke = [sys.executable, ROOT / 'tests' / 'smoke.py']
    done = subprocess.run(smoke, cwd=tmp_path, env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_wheel_carries_packages_configs_and_tools(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
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


def test_the_image_installs_the_project_from_all_that_the_package_needs(tmp_path):
    """The image's builder has only some of the files; the editable build must find in them what it includes."""
    builder = (ROOT / 'docker' / 'Dockerfile').read_text().split('AS builder')[1].split('FROM')[0]
    for line in re.findall(r'^COPY --chown=\S+ (.+)$', builder, re.MULTILINE):
        *sources, target = line.split()
        (tmp_path / target).mkdir(parents=True, exist_ok=True)
        for source in sources:
            shutil.copy(ROOT / source, tmp_path / target)
    for folders in re.findall(r'^RUN mkdir (.+)$', builder, re.MULTILINE):
        for folder in folders.split():
            (tmp_path / folder).mkdir()
    code = 'from hatchling.build import build_editable; build_editable("out")'
    done = subprocess.run([sys.executable, '-c', code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
