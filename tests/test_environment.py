"""The environment that `make setup` makes, and the code that makes it."""

import importlib.metadata
import importlib.util
import subprocess
import sys
import sysconfig
import tarfile
import time
import zipfile
from functools import partial
from pathlib import Path

import pytest
from mmengine.config import Config

from coc_core.mm import requirements

ROOT = Path(__file__).parents[1]
TOOL = ROOT / 'tools' / 'dev' / 'setup_environment.py'


@pytest.fixture(scope='module')
def setup_environment():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(TOOL.parent)
        yield load_tool()


def load_tool():
    spec = importlib.util.spec_from_file_location('setup_environment', TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def installed():
    """What pip installed; setuptools carries copies of other packages that sys.path may show."""
    site_packages = importlib.metadata.distributions(path=[sysconfig.get_path('purelib')])
    return {d.metadata['Name'].lower().replace('_', '-'): d.version for d in site_packages}


def family():
    names = installed()
    return 'onedl' if 'onedl-mmengine' in names else 'openmmlab'


def test_a_family_gets_its_own_lines_and_the_common_ones(setup_environment):
    onedl, openmmlab = setup_environment.locked('onedl'), setup_environment.locked('openmmlab')
    assert onedl['torch'] == openmmlab['torch']
    assert 'onedl-mmcv' in onedl and 'mmcv' not in onedl
    assert 'mmcv' in openmmlab and 'onedl-mmcv' not in openmmlab
    assert onedl['numpy'].startswith('2.') and openmmlab['numpy'].startswith('1.')


@pytest.mark.parametrize(('minor', 'has'), [(12, False), (13, True)])
def test_a_python_gets_its_own_lines(setup_environment, monkeypatch, minor, has):
    monkeypatch.setattr(setup_environment.sys, 'version_info', (3, minor, 0, 'final', 0))
    assert ('audioop-lts' in setup_environment.locked('onedl')) is has


def test_a_broken_lock_is_named(setup_environment, tmp_path, monkeypatch):
    monkeypatch.setattr(setup_environment, 'LOCK', tmp_path / 'requirements.lock')
    for line in ('torch>=2', 'mmcv==2.1.0  # upstream'):
        setup_environment.LOCK.write_text(line)
        with pytest.raises(setup_environment.SetupError, match='not "name==version'):
            setup_environment.locked('onedl')


@pytest.mark.family
def test_installed_versions_are_the_locked_ones(setup_environment):
    versions = installed()
    for name, version in setup_environment.locked(family()).items():
        assert versions[name.lower().replace('_', '-')].split('+')[0] == version, name


def test_the_advice_on_missing_packages_names_the_locked_versions(setup_environment):
    advised = {r for pair in requirements._DISTRIBUTIONS.values() for r in pair}
    locked = {f'{n}=={v}' for f in setup_environment.FAMILIES for n, v in setup_environment.locked(f).items()}
    assert advised <= locked


def test_there_is_one_opencv_and_it_needs_no_libgl():
    assert [n for n in installed() if n.startswith('opencv')] == ['opencv-python-headless']


@pytest.mark.family
@pytest.mark.parametrize('package', ['mmpretrain', 'mmdet', 'mmseg'])
def test_bases_of_installed_packages_resolve(tmp_path, package):
    path = tmp_path / 'config.py'
    path.write_text(f"_base_ = ['{package}::_base_/default_runtime.py']\n")
    assert Config.fromfile(path).default_scope == package


def test_torchvision_imports_first_and_python_starts_without_torch():
    code = 'import sys; assert "torch" not in sys.modules; import torchvision; print(torchvision.__version__)'
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.family
def test_compiled_operators_work():
    import torch
    from mmcv.ops import nms

    boxes = torch.tensor([[0.0, 0, 10, 10], [1, 1, 10, 10], [20, 20, 30, 30]])
    assert nms(boxes, torch.tensor([0.9, 0.8, 0.7]), iou_threshold=0.5)[1].tolist() == [0, 2]


def test_an_unknown_family_is_one_sentence():
    done = subprocess.run([sys.executable, TOOL, '--family', 'mm'], capture_output=True, text=True)
    assert done.returncode != 0
    assert done.stderr.strip() == 'setup: MM=mm is not a family of mm* packages: choose onedl or openmmlab.'


def test_an_unfinished_environment_is_not_taken_for_complete(setup_environment, tmp_path):
    environment = setup_environment.Environment('onedl', tmp_path)
    assert not environment.is_complete(operators=False)
    (tmp_path / setup_environment.STAMP).write_text(environment.wanted_stamp())
    assert not environment.is_complete(operators=False)


def test_an_environment_without_operators_serves_where_none_are_needed(setup_environment, tmp_path, monkeypatch):
    environment = setup_environment.Environment('onedl', tmp_path)
    monkeypatch.setattr(environment, '_works', lambda code: True)
    stamp = tmp_path / setup_environment.STAMP
    stamp.write_text(f'{environment.wanted_stamp()} {setup_environment.WITHOUT_OPERATORS}')
    assert environment.is_complete(operators=False) and not environment.is_complete(operators=True)
    stamp.write_text(f'{environment.wanted_stamp()} {setup_environment.GIVEN_OPERATORS}')
    assert environment.is_complete(operators=False) and environment.is_complete(operators=True)


def test_an_environment_of_a_login_node_is_made_again_where_a_gpu_is(setup_environment, tmp_path, monkeypatch):
    environment = setup_environment.Environment('onedl', tmp_path)
    monkeypatch.setattr(environment, '_works', lambda code: True)
    asked = []
    monkeypatch.setattr(setup_environment.cuda_operators, 'serve', lambda *arguments: asked.append(arguments))
    (tmp_path / setup_environment.STAMP).write_text(f'{environment.wanted_stamp()} 2.13.0+cu130')
    assert not environment.is_complete(operators=True) and environment.is_complete(operators=False)
    assert asked == [('2.13.0+cu130', environment.python)]


def test_an_environment_is_not_complete_while_pip_changes_it(setup_environment, tmp_path, monkeypatch):
    environment = setup_environment.Environment('onedl', tmp_path)
    stamp, seen = tmp_path / setup_environment.STAMP, []
    stamp.write_text(environment.wanted_stamp())
    monkeypatch.setattr(environment, '_run', lambda *arguments: seen.append(stamp.exists()))
    environment.pip('installing', 1, 'install', 'something')
    assert seen == [False]


def test_one_environment_is_not_taken_for_the_other_family(setup_environment, tmp_path):
    stamps = {f: setup_environment.Environment(f, tmp_path).wanted_stamp() for f in setup_environment.FAMILIES}
    assert stamps['onedl'] != stamps['openmmlab']


def test_operators_for_other_gpus_are_not_taken_from_the_cache(setup_environment, tmp_path):
    environment = setup_environment.Environment('onedl', tmp_path)
    target = partial(setup_environment.cuda_operators.Target, '2.13.0+cu130', '13.0')
    targets = [target(False, ()), target(False, ('9.0',)), target(True, ('8.0',)), target(True, ('8.0', '9.0+PTX'))]
    folders = [environment._wheel_folder('onedl-mmcv', each) for each in targets]
    assert folders[0] == folders[1] and len(set(folders)) == 3


def test_an_interrupted_compilation_goes_on_with_the_files_that_it_has(setup_environment, tmp_path, monkeypatch):
    environment = setup_environment.Environment('onedl', tmp_path / 'venv')
    environment.folder.mkdir()
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    monkeypatch.setattr(setup_environment, 'check_compiler', lambda: None)
    runs = []

    def pip(step, seconds, *arguments):
        runs.append(arguments[0])
        (tmp_path / 'setup.py').touch()
        with tarfile.open(Path(arguments[arguments.index('-d') + 1]) / 'mmcv-1.tar.gz', 'w:gz') as archive:
            archive.add(tmp_path / 'setup.py', 'mmcv-1/setup.py')

    def compile_(step, seconds, command, variables):
        source, out = command[-1], Path(command[command.index('-w') + 1])
        runs.append((source / 'setup.py').exists() and sorted(path.name for path in source.glob('*.o')))
        (source / 'roi_align.o').touch()
        if len(runs) == 2:
            raise KeyboardInterrupt
        write_wheel(out)

    monkeypatch.setattr(environment, 'pip', pip)
    monkeypatch.setattr(environment, '_run', compile_)
    target = setup_environment.cuda_operators.Target('2.13.0+cpu', 'None', False, ())
    with pytest.raises(KeyboardInterrupt):
        environment._compile('onedl-mmcv', 'onedl-mmcv==1', target)
    wheel = environment._compile('onedl-mmcv', 'onedl-mmcv==1', target)
    assert runs == ['download', [], ['roi_align.o']]
    assert wheel.parent == environment._wheel_folder('onedl-mmcv', target) and setup_environment.is_whole(wheel)
    assert list(environment.folder.iterdir()) == []


def test_a_set_up_that_is_stopped_leaves_no_compiler_behind(setup_environment, tmp_path, monkeypatch):
    pid = tmp_path / 'pid'

    def tick(progress):
        if pid.exists() and pid.read_text():
            raise KeyboardInterrupt

    monkeypatch.setattr(setup_environment.Progress, 'tick', tick)
    environment = setup_environment.Environment('onedl', tmp_path)
    with pytest.raises(KeyboardInterrupt):
        environment._run('compiling', 1, ['sh', '-c', f'sleep 600 & echo $! > {pid}; wait'])
    compiler = Path('/proc') / pid.read_text().strip() / 'stat'
    deadline = time.monotonic() + 20
    while compiler.exists() and compiler.read_text().split()[2] != 'Z' and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not compiler.exists() or compiler.read_text().split()[2] == 'Z'


@pytest.fixture
def mmcv_set_up(setup_environment, tmp_path, monkeypatch):
    """An environment whose pip and compiler are replaced, and the wheel cache that it uses."""
    folder = tmp_path / 'wheels'
    folder.mkdir()
    environment = setup_environment.Environment('onedl', tmp_path / 'venv')
    compiled, installed = [], []

    def compile_(name, requirement, target):
        compiled.append(requirement)
        return write_wheel(folder)

    target = setup_environment.cuda_operators.Target('2.13.0+cpu', 'None', False, ())
    monkeypatch.setattr(setup_environment.cuda_operators, 'target', lambda python: target)
    monkeypatch.setattr(environment, '_wheel_folder', lambda name, target: folder)
    monkeypatch.setattr(environment, '_compile', compile_)
    monkeypatch.setattr(environment, 'pip', lambda step, seconds, *rest, env=None: installed.append((*rest, env)))
    monkeypatch.setattr(environment, '_works', lambda code: True)
    monkeypatch.delenv('MMCV_WHEEL', raising=False)
    return environment, folder, compiled, installed


def write_wheel(folder):
    wheel = folder / 'mmcv-1-py3-none-any.whl'
    with zipfile.ZipFile(wheel, 'w') as archive:
        archive.writestr('mmcv/__init__.py', 'x = 1\n' * 1000)
    return wheel


def test_a_sound_cached_mmcv_is_not_compiled_again(mmcv_set_up):
    environment, folder, compiled, _ = mmcv_set_up
    write_wheel(folder)
    assert environment._install_mmcv('mmcv', 'mmcv==1', operators=True) == '2.13.0+cpu'
    assert compiled == []


def test_a_damaged_cached_mmcv_is_compiled_once_again(mmcv_set_up, setup_environment):
    environment, folder, compiled, _ = mmcv_set_up
    wheel = write_wheel(folder)
    wheel.write_bytes(wheel.read_bytes()[:-40])
    assert environment._install_mmcv('mmcv', 'mmcv==1', operators=True)
    assert compiled == ['mmcv==1']
    assert setup_environment.is_whole(wheel)


def test_an_mmcv_without_operators_is_compiled_once_and_not_kept(mmcv_set_up, setup_environment, monkeypatch):
    environment, folder, compiled, _ = mmcv_set_up
    write_wheel(folder)
    monkeypatch.setattr(environment, '_works', lambda code: False)
    with pytest.raises(setup_environment.SetupError, match='does not import'):
        environment._install_mmcv('mmcv', 'mmcv==1', operators=True)
    assert compiled == ['mmcv==1'] and not list(folder.iterdir())


def test_where_no_operators_are_needed_nothing_is_compiled(mmcv_set_up, setup_environment):
    environment, _, compiled, installed = mmcv_set_up
    kind = environment._install_mmcv('mmcv', 'mmcv==1', operators=False)
    assert kind == setup_environment.WITHOUT_OPERATORS
    *_, requirement, variables = installed[-1]
    assert compiled == [] and requirement == 'mmcv==1' and list(variables) == ['PYTHONPATH']


def test_a_cached_wheel_serves_where_no_operators_are_needed(mmcv_set_up):
    environment, folder, compiled, installed = mmcv_set_up
    wheel = write_wheel(folder)
    assert environment._install_mmcv('mmcv', 'mmcv==1', operators=False)
    assert compiled == [] and wheel in installed[-1]


@pytest.mark.parametrize(
    ('given', 'source'),
    [('a/mmcv.whl', ['a/mmcv.whl']), ('https://there/', ['--find-links', 'https://there/', 'mmcv==1'])],
)
def test_a_wheel_that_the_user_names_is_taken(mmcv_set_up, setup_environment, monkeypatch, given, source):
    environment, _, compiled, installed = mmcv_set_up
    monkeypatch.setenv('MMCV_WHEEL', given)
    kind = environment._install_mmcv('mmcv', 'mmcv==1', operators=True)
    assert kind == setup_environment.GIVEN_OPERATORS
    assert compiled == [] and list(installed[-1][-1 - len(source) : -1]) == source
    monkeypatch.setattr(environment, '_works', lambda code: False)
    with pytest.raises(setup_environment.SetupError, match='^MMCV_WHEEL=.* has no operators that work here'):
        environment._install_mmcv('mmcv', 'mmcv==1', operators=True)


@pytest.mark.parametrize('version', [(3, 10), (3, 14)])
def test_a_python_that_the_lock_is_not_for_is_one_sentence(setup_environment, monkeypatch, version):
    monkeypatch.setattr(sys, 'version_info', version)
    with pytest.raises(setup_environment.SetupError, match='^The locked stack is for Python 3.11, 3.12 and 3.13,'):
        setup_environment.check_python()
