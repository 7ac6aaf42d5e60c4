#!/usr/bin/env python3
"""Make the project's environment: a venv with the locked stack. ``make`` calls this.

Classification and point clouds need nothing but Python and pip: --without-operators leaves mmcv's C++ code out. For
the other tasks and the tests it is compiled, which takes a C++ compiler and minutes, when they first ask for it. The
wheel is kept in the user's cache directory (XDG_CACHE_HOME, else ~/.cache), keyed by the mmcv, torch and Python
versions and the GPUs that it is for, and used from then on; MMCV_WHEEL names a ready one. Running this again changes
nothing when nothing changed, repairs what an interrupted run left, and compiles no file a second time.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import os
import platform
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
import venv
import zipfile
from pathlib import Path

import cuda_operators
from progress import Progress

ROOT = Path(__file__).resolve().parents[2]
LOCK = ROOT / 'requirements.lock'
OPERATORS = Path(__file__).with_name('torchvision_operators.py')
SOURCES = (LOCK, ROOT / 'pyproject.toml', Path(__file__), Path(cuda_operators.__file__), OPERATORS)
FAMILIES = ('onedl', 'openmmlab')
# On PyPI torch for Linux is a CUDA build with gigabytes of libraries; elsewhere it is a CPU build.
CPU_INDEX = 'https://download.pytorch.org/whl/cpu'
PYTHONS = ((3, 11), (3, 12), (3, 13))
STAMP = 'context-cluster-setup'
# What ends an environment's stamp, beside the target that its mmcv's operators were compiled for.
WITHOUT_OPERATORS = 'without-operators'
GIVEN_OPERATORS = 'given-operators'
INSTALLED_CHECK = "import importlib.util as u; assert all(map(u.find_spec, ('torch', 'mmcv', 'coc_core')))"
CPU_CHECK = f'{INSTALLED_CHECK}; import torch; assert torch.version.cuda is None'
MMCV_CHECK = 'from mmcv.ops import RoIAlign, nms'
PYTHON_CHECK = f'import pip, sys; assert sys.version_info[:2] == {sys.version_info[:2]}'


class SetupError(Exception):
    """Set-up cannot go on; the message says why and what to do."""


def locked(family: str) -> dict[str, str]:
    """Return the exact versions of one family's environment, by distribution name.

    Raises:
        SetupError: A line of the lock is not ``name==version``, with or without its owner: a family, ``linux``, or a
            version such as ``python3.13``.
    """
    versions = {}
    pythons = [f'python{major}.{minor}' for major, minor in PYTHONS]
    mine = ('', family, sys.platform, 'python{}.{}'.format(*sys.version_info))
    for line in LOCK.read_text().splitlines():
        requirement, _, owner = (part.strip() for part in line.partition('#'))
        if not requirement:
            continue
        name, separator, version = requirement.partition('==')
        if not separator or owner not in ('', 'linux', *FAMILIES, *pythons):
            raise SetupError(f'{LOCK.name} has a line that is not "name==version  # family": {line!r}.')
        if owner in mine:
            versions[name] = version
    return versions


def is_mm(name: str) -> bool:
    """Tell whether a distribution is one of the mm* packages."""
    return name.removeprefix('onedl-').startswith('mm')


def is_whole(wheel: Path) -> bool:
    """Tell whether every file in a wheel can be read back."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            return archive.testzip() is None
    except (zipfile.BadZipFile, OSError):
        return False


class Environment:
    """One family's venv."""

    def __init__(self, family: str, folder: Path, cpu_torch: bool = False) -> None:
        self.family, self.folder, self.cpu_torch = family, folder, cpu_torch
        self.versions = locked(family)
        self.python = folder / 'bin' / 'python'
        self.log = folder / 'setup.log'

    def wanted_stamp(self) -> str:
        """Hash of everything that decides what is in the environment."""
        digest = hashlib.sha256(f'{sys.version} {ROOT} {self.family}'.encode())
        for path in SOURCES:
            digest.update(path.read_bytes())
        return digest.hexdigest()

    def is_complete(self, operators: bool) -> bool:
        """Tell whether an earlier run finished, with mmcv's operators if wanted, and nothing has changed since."""
        stamp = self.folder / STAMP
        if not stamp.is_file() or not self._works(CPU_CHECK if self.cpu_torch else INSTALLED_CHECK):
            return False
        wanted, _, kind = stamp.read_text().partition(' ')
        if wanted != self.wanted_stamp():
            return False
        if not operators or kind == GIVEN_OPERATORS:
            return True
        return kind != WITHOUT_OPERATORS and cuda_operators.serve(kind, self.python)

    def _works(self, code: str) -> bool:
        try:
            done = subprocess.run([self.python, '-c', code], capture_output=True, cwd=ROOT)
        except OSError:
            return False
        return done.returncode == 0

    def _run(self, step: str, expected_s: float, command: list[str | Path], env: dict[str, str] | None = None) -> None:
        progress = Progress(step, expected_s)
        path = f'{self.folder / "bin"}{os.pathsep}{os.environ.get("PATH", "")}'
        variables = {**os.environ, 'PATH': path, **(env or {})}
        with open(self.log, 'ab') as log:
            # A session of its own can be stopped with all compilers in it. Killed outright, this process leaves it
            # behind: it inherits the lock, for which the next set-up then waits.
            process = subprocess.Popen(
                command,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=ROOT,
                env=variables,
                start_new_session=True,
                close_fds=False,
            )
            try:
                with open(self.log, errors='replace') as tail:
                    tail.seek(0, os.SEEK_END)
                    while process.poll() is None:
                        for line in tail:
                            progress.read(line)
                        progress.tick()
                        time.sleep(0.2)
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGTERM)
                    process.wait()
        progress.finish()
        if process.returncode:
            raise SetupError(
                f'"{step}" failed; the reason is at the end of {self.log}. Mend it and run the set-up again: '
                'it goes on from here.'
            )

    def pip(self, step: str, expected_s: float, *arguments: str | Path, env: dict[str, str] | None = None) -> None:
        """Run pip in the environment, which is not complete from then on."""
        (self.folder / STAMP).unlink(missing_ok=True)
        self._run(step, expected_s, [self.python, '-m', 'pip', '--disable-pip-version-check', *arguments], env)

    def build(self, operators: bool) -> None:
        """Bring the environment to the locked state, with mmcv's operators or without."""
        # Of the files as they are now: one that changes while this runs has to be installed the next time.
        stamp = self.wanted_stamp()
        requirement = {name: f'{name}=={version}' for name, version in self.versions.items()}
        mmcv = next(name for name in requirement if name.endswith('mmcv'))
        if not self.is_complete(operators=False):
            self._install_libraries(requirement)
        kind = self._install_mmcv(mmcv, requirement[mmcv], operators)
        self.pip('6/6 installing the project', 5, 'install', '--no-deps', '--no-build-isolation', '-e', ROOT)
        (self.folder / STAMP).write_text(f'{stamp} {kind}')

    def _install_libraries(self, requirement: dict[str, str]) -> None:
        if not self._works(PYTHON_CHECK):
            shutil.rmtree(self.folder, ignore_errors=True)
            print(f'1/6 creating {self.folder.name}', flush=True)
            self._create()
        index = []
        if self.cpu_torch:
            index = ['--extra-index-url', CPU_INDEX]
            requirement |= {name: f'{requirement[name]}+cpu' for name in ('torch', 'torchvision')}
        constraints = self._constraints(requirement)
        self.pip('2/6 installing torch', 60, 'install', *index, '-c', constraints, requirement['torch'])
        plain = [r for name, r in requirement.items() if not is_mm(name) and name != 'torch']
        self.pip('3/6 installing the libraries', 90, 'install', '--no-deps', *index, *plain)
        self._repair_torchvision()
        mm = [r for name, r in requirement.items() if is_mm(name) and not name.endswith('mmcv')]
        self.pip('4/6 installing the mm* packages', 60, 'install', '--no-deps', '--no-build-isolation', *mm)
        self._alias_mmsegmentation()

    def _create(self) -> None:
        try:
            venv.create(self.folder, with_pip=True)
        except (subprocess.CalledProcessError, ImportError) as error:
            raise SetupError(
                f'{sys.executable} cannot make a virtual environment with pip ({error}): install its venv module '
                '(Debian: apt install python3-venv).'
            ) from error

    def _constraints(self, requirement: dict[str, str]) -> Path:
        path = self.folder / 'constraints.txt'
        path.write_text('\n'.join(r for name, r in requirement.items() if name != 'torch'))
        return path

    def _site_packages(self) -> Path:
        code = 'import sysconfig; print(sysconfig.get_path("purelib"))'
        return Path(
            subprocess.run([self.python, '-c', code], capture_output=True, text=True, check=True).stdout.strip()
        )

    def _repair_torchvision(self) -> None:
        # The stock mm* tools import torchvision before any file of ours, so the repair must lie in the environment.
        module = self._site_packages() / 'coc_torchvision_operators.py'
        hook = module.with_suffix('.pth')
        module.unlink(missing_ok=True)
        hook.unlink(missing_ok=True)
        if not self._works('import torchvision'):
            shutil.copy(OPERATORS, module)
            hook.write_text(f'import {module.stem}; {module.stem}.install_import_hook()\n')

    def _alias_mmsegmentation(self) -> None:
        # mmengine looks up `mmseg::` bases under the distribution name mmsegmentation, which the OneDL family has not.
        if self.family != 'onedl':
            return
        version = self.versions['onedl-mmsegmentation']
        folder = self._site_packages() / f'mmsegmentation-{version}.dist-info'
        folder.mkdir(exist_ok=True)
        (folder / 'METADATA').write_text(
            f'Metadata-Version: 2.1\nName: mmsegmentation\nVersion: {version}\nSummary: Alias of onedl-mmsegmentation\n'
        )
        (folder / 'top_level.txt').write_text('mmseg\n')
        (folder / 'INSTALLER').write_text('context-cluster\n')
        (folder / 'RECORD').write_text('')

    def _install_mmcv(self, name: str, requirement: str, operators: bool) -> str:
        """Install a ready wheel, a newly compiled one, or the Python files alone; return what the stamp says of it."""
        given = os.environ.get('MMCV_WHEEL')
        if given:
            source = [given] if given.endswith('.whl') else ['--find-links', given, requirement]
            if not self._has_operators_from(requirement, *source):
                raise SetupError(f'MMCV_WHEEL={given} has no operators that work here: leave it out to compile them.')
            return GIVEN_OPERATORS
        target = cuda_operators.target(self.python)
        cached = next(iter(self._wheel_folder(name, target).glob('*.whl')), None)
        if cached:
            if is_whole(cached) and self._has_operators_from(requirement, cached):
                return target.key
            cached.unlink()
            print('  the cached mmcv wheel is damaged or has no working operators: removed', flush=True)
        if not operators:
            self._install_without_operators(name, requirement)
            return WITHOUT_OPERATORS
        compiled = self._compile(name, requirement, target)
        if self._has_operators_from(requirement, compiled):
            return target.key
        compiled.unlink()
        raise SetupError(
            f'The compiled mmcv does not import: run `{self.python} -c "{MMCV_CHECK}"` to see why; the compiler\'s '
            f'output is in {self.log}.'
        )

    def _install_without_operators(self, name: str, requirement: str) -> None:
        options = ['--no-deps', '--no-build-isolation', '--force-reinstall', '--no-cache-dir', '--no-binary', name]
        with tempfile.TemporaryDirectory() as folder:
            # mmcv compiles nothing where it finds no torch, and in the OneDL family by no other setting.
            (Path(folder) / 'torch.py').write_text('raise ModuleNotFoundError("hidden from the set-up of mmcv")')
            step = f'5/6 installing {requirement} without its operators'
            self.pip(step, 15, 'install', *options, requirement, env={'PYTHONPATH': folder})

    def _has_operators_from(self, requirement: str, *source: str | Path) -> bool:
        self.pip(f'5/6 installing {requirement}', 5, 'install', '--no-deps', '--force-reinstall', '--no-index', *source)
        return self._works(MMCV_CHECK)

    def _wheel_folder(self, name: str, target: cuda_operators.Target) -> Path:
        python = f'cp{sys.version_info.major}{sys.version_info.minor}'
        system = f'{platform.system().lower()}-{platform.machine()}'
        return wheel_cache() / f'{name}-{self.versions[name]}_torch-{target.key}_{python}_{system}'

    def _compile(self, name: str, requirement: str, target: cuda_operators.Target) -> Path:
        check_compiler()
        lacking = cuda_operators.lacks(target)
        if lacking:
            raise SetupError(lacking)
        print('  detection, segmentation and the tests need them; once compiled they are kept', flush=True)
        folder = self._wheel_folder(name, target)
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
            # -g, which Python's own flags carry, doubles the time. With build isolation there would be no operators.
            jobs = int(os.environ.get('MAX_JOBS') or os.cpu_count() or 1)
            environment = {'MMCV_WITH_OPS': '1', 'CFLAGS': '-g0', 'MAX_JOBS': str(jobs)}
            if target.gpu:
                environment['CPATH'] = cuda_operators.header_path(self._site_packages())
            source = self._unpacked(name, requirement, self.folder / f'source_{folder.name}')
            options = ['--no-build-isolation', '--no-deps', '-v', '-w', scratch, source]
            command = [self.python, '-m', 'pip', '--disable-pip-version-check', 'wheel', *options]
            self._run(f'5/6 compiling {requirement}', target.core_seconds / jobs, command, environment)
            folder.mkdir(exist_ok=True)
            made = next(Path(scratch).glob('*.whl'))
            wheel = made.rename(folder / made.name)
        shutil.rmtree(source)
        return wheel

    def _unpacked(self, name: str, requirement: str, folder: Path) -> Path:
        """Return a package's source, beside which ninja keeps what an interrupted compilation had made."""
        if folder.exists():
            return folder
        with tempfile.TemporaryDirectory(dir=self.folder) as scratch:
            options = ['--no-build-isolation', '--no-deps', '--no-binary', name, '-d', scratch]
            self.pip(f'5/6 fetching the source of {requirement}', 10, 'download', *options, requirement)
            shutil.unpack_archive(next(Path(scratch).glob('*.tar.gz')), Path(scratch) / 'unpacked')
            return next(Path(scratch, 'unpacked').iterdir()).rename(folder)


def wheel_cache() -> Path:
    """Return the folder in which compiled wheels are kept, one folder for each kind."""
    return Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache') / 'context-cluster' / 'wheels'


def check_python() -> None:
    """Raise SetupError when this is a Python that the locked stack is not for."""
    if sys.version_info[:2] not in PYTHONS:
        *others, last = ('.'.join(map(str, version)) for version in PYTHONS)
        raise SetupError(
            f'The locked stack is for Python {", ".join(others)} and {last}, this is {platform.python_version()}: '
            'run make setup PYTHON=python3.11.'
        )


def check_compiler() -> None:
    """Raise SetupError when mmcv cannot be compiled on this machine."""
    version = f'python{sys.version_info.major}.{sys.version_info.minor}'
    header = Path(sysconfig.get_path('include')) / 'Python.h'
    if not header.exists():
        raise SetupError(
            f'{header} is missing, and mmcv must be compiled: install it (Debian: apt install {version}-dev).'
        )
    if not any(shutil.which(compiler) for compiler in (os.environ.get('CXX', 'c++'), 'g++', 'clang++')):
        raise SetupError('No C++ compiler was found, and mmcv must be compiled: install g++ (Debian: apt install g++).')


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--family', default='onedl', help='mm* packages: onedl (maintained forks) or openmmlab')
    parser.add_argument(
        '--torch', default='', choices=['', 'cpu'], help='cpu: the CPU build, from the index of PyTorch (Linux)'
    )
    parser.add_argument('--venv', type=Path, help='folder of the environment (.venv, or .venv-FAMILY)')
    parser.add_argument(
        '--without-operators',
        dest='operators',
        action='store_false',
        help="leave mmcv's compiled operators out, which detection and segmentation need",
    )
    args = parser.parse_args()
    if args.family not in FAMILIES:
        raise SetupError(f'MM={args.family} is not a family of mm* packages: choose {" or ".join(FAMILIES)}.')
    check_python()
    if args.operators and 'MMCV_WHEEL' not in os.environ and not any(wheel_cache().glob('*/*.whl')):
        check_compiler()
    default = ROOT / ('.venv' if args.family == 'onedl' else f'.venv-{args.family}')
    cpu_torch = args.torch == 'cpu' and sys.platform == 'linux'
    environment = Environment(args.family, (args.venv or default).absolute(), cpu_torch)
    environment.folder.parent.mkdir(parents=True, exist_ok=True)
    with open(environment.folder.with_name(environment.folder.name + '.lock'), 'w') as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f'another set-up of {environment.folder.name} is running: waiting for it', flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        os.set_inheritable(lock.fileno(), True)
        if environment.is_complete(args.operators):
            print(f'{environment.folder.name} is up to date')
            return
        environment.build(args.operators)
    print(f'{environment.folder.name} is ready: source {environment.folder.name}/bin/activate')


if __name__ == '__main__':
    for ending in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(ending) is not signal.SIG_IGN:
            signal.signal(ending, signal.default_int_handler)
    try:
        main()
    except SetupError as error:
        sys.exit(f'setup: {error}')
    except KeyboardInterrupt:
        sys.exit('\nsetup: interrupted; run it again to go on.')
