"""tools/doctor.py as users start it: as it is here, where nothing is installed, and where torch is broken."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from processes import run_tool

TOOL = Path(__file__).parents[2] / 'tools' / 'doctor.py'
LOOKED_AT = {
    'Python', 'torch', 'timm', 'einops', 'torchvision', 'coc_core', 'mm* packages', 'mmengine', 'mmcv operators',
    'C compiler', 'Python.h', 'cores', 'memory', 'disk', '/dev/shm',
}  # fmt: skip


def lines_of(text):
    """State and sentence of each line by its name."""
    lines = [line for line in text.splitlines() if line[:5].strip() in ('ok', 'note', 'WRONG')]
    return {line[7:25].strip(): (line[:5].strip(), line[26:]) for line in lines}


@pytest.mark.family
def test_the_environment_of_the_tests_is_sound(tmp_path):
    done = run_tool(TOOL, '--quick', cwd=tmp_path)
    told = lines_of(done.stdout)
    assert done.returncode == int(any(state == 'WRONG' for state, _ in told.values())), done.stdout + done.stderr
    assert set(told) >= LOOKED_AT
    packages = ('torch', 'torchvision', 'timm', 'coc_core', 'mm* packages', 'mmdet', 'mmseg', 'mmpretrain')
    assert not {name: told[name] for name in packages if told[name][0] == 'WRONG'}


def test_json_has_facts_and_no_person(tmp_path):
    done = run_tool(TOOL, '--quick', '--json', cwd=tmp_path, env={'HOME': str(tmp_path)})
    told = json.loads(done.stdout)
    entries = {entry['name']: entry for entry in told['findings']}
    assert set(entries) >= LOOKED_AT
    assert told['wrong'] == sum(entry['state'] == 'WRONG' for entry in told['findings'])
    assert entries['torch']['facts']['version'] and entries['cores']['facts']['affinity'] >= 1
    assert entries['mm* packages']['facts']['mmdet'].startswith(('onedl-mmdetection 3', 'mmdet 3'))
    assert str(tmp_path) not in done.stdout


def test_where_nothing_is_installed():
    done = subprocess.run([sys.executable, '-I', '-S', TOOL], capture_output=True, text=True, timeout=60)
    told = lines_of(done.stdout)
    assert done.returncode == 1 and not done.stderr
    assert told['torch'] == ('WRONG', "is not installed: `make setup` or `pip install 'torch>=2.6'`")
    assert told['torchvision'][0] == told['timm'][0] == told['coc_core'][0] == 'WRONG'
    assert told['Python'][0] == told['disk'][0] == 'ok' and told['mmdet'][0] == 'note'


def test_where_torch_is_broken(tmp_path):
    (tmp_path / 'torch').mkdir()
    (tmp_path / 'torch' / '__init__.py').write_text("raise ImportError('libcudart.so.13: no such file')")
    done = subprocess.run(
        [sys.executable, TOOL, '--json'], capture_output=True, text=True, timeout=60, env={'PYTHONPATH': str(tmp_path)}
    )
    entries = {entry['name']: entry for entry in json.loads(done.stdout)['findings']}
    assert done.returncode == 1
    assert 'does not import (ImportError: libcudart.so.13' in entries['torch']['says']
    assert entries['coc_core']['state'] == entries['threads']['state'] == 'WRONG'
    assert entries['GPU']['says'] == 'cannot be told: ImportError: libcudart.so.13: no such file'
    assert entries['disk']['state'] == 'ok'
