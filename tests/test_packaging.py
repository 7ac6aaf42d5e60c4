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
HELP = [sys.executable, 'tools/dev/setup_environment.py', '--help']
EDITABLE = 'from hatchling.build import build_editable; build_editable("out")'
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
        sources = {str(p.relative_to(ROOT)) for s in ('*.py', '*.safetensors') for p in (ROOT / folder).rglob(s)}
        assert sources <= names
    for folder in ('configs', 'tools'):
        sources = {str(p.relative_to(ROOT)) for s in ('*.py', '*.sh') for p in (ROOT / folder).rglob(s)}
        assert {f'coc_core/.mim/{name}' for name in sources} <= names
    metafiles = {str(p.relative_to(ROOT)) for p in (ROOT / 'configs').rglob('metafile.yml')} | {'model-index.yml'}
    assert len(metafiles) == 5 and {f'coc_core/.mim/{name}' for name in metafiles} <= names


def test_nothing_imports_tools():
    for path in (path for folder in PACKAGES for path in (ROOT / folder).rglob('*.py')):
        assert 'import tools' not in path.read_text() and 'from tools' not in path.read_text()


def stages():
    """The stages of the Dockerfile in their order: of each the one that it stands on, and its instructions."""
    text = (ROOT / 'docker' / 'Dockerfile').read_text()
    text = re.sub(r'^#.*\n', '', text, flags=re.MULTILINE).replace('\\\n', '')
    heads = list(re.finditer(r'^FROM (\S+) AS (\S+)$', text, re.MULTILINE))
    ends = [head.start() for head in heads[1:]] + [len(text)]
    return {
        head[2]: (head[1], text[head.end() : end].strip().splitlines()) for head, end in zip(heads, ends, strict=True)
    }


def instructions(stage):
    """All instructions that made a stage's file system, those of the stages below it among them."""
    parent, own = stages().get(stage, (None, []))
    return instructions(parent) + own if parent else own


def packages(stage):
    """What a stage's instructions install of Debian."""
    installs = re.findall(r'apt-get install -y --no-install-recommends ([^&]+)', '\n'.join(instructions(stage)))
    return set(' '.join(installs).split())


def test_the_image_for_gpus_can_compile_what_triton_launches():
    *_, last = stages()
    assert last == 'cuda'
    (python,) = (p for p in packages('base') if re.fullmatch(r'python3\.\d+', p))
    # g++ brings gcc and the C library's headers, which gcc alone only recommends.
    assert {'g++', f'{python}-dev'} <= packages('cuda')
    # A compiler takes as much room as all else that this image has of Debian.
    assert not {p for p in packages('cpu') if p.startswith(('gcc', 'g++')) or p.endswith('-dev')}


@pytest.mark.parametrize('target', ['cpu', 'cuda'])
def test_an_image_runs_as_its_own_user(target):
    users = [line.split()[1] for line in instructions(target) if line.startswith('USER ')]
    assert users[-1] == '1000:1000'


def test_the_image_installs_the_project_from_all_that_the_package_needs(tmp_path):
    """The image's builder has only some of the files; the editable build must find in them what it includes."""
    builder = '\n'.join(stages()['builder'][1])
    for line in re.findall(r'^COPY --chown=\S+ (.+)$', builder, re.MULTILINE):
        *sources, target = line.split()
        (tmp_path / target).mkdir(parents=True, exist_ok=True)
        for source in sources:
            shutil.copy(ROOT / source, tmp_path / target)
    for folders in re.findall(r'^RUN mkdir (.+)$', builder, re.MULTILINE):
        for folder in folders.split():
            (tmp_path / folder).mkdir()
    # The set-up itself has to start, too.
    for command in (HELP, [sys.executable, '-c', EDITABLE]):
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
