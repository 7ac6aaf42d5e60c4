"""How a tool's threads wait, which torch reads before a tool could say so."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

TOOLS = Path(__file__).resolve().parents[2] / 'tools'
ORDER = """
import os, runpy, sys

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == 'torch':
            print('waiting', os.environ.get('OMP_WAIT_POLICY'), os.environ.get('GOMP_SPINCOUNT'))

sys.meta_path.insert(0, Finder())
sys.argv = [sys.argv[1], '--help']
runpy.run_path(sys.argv[0], run_name='__main__')
"""


@pytest.mark.parametrize('tool', ['train.py', 'test.py', 'predict.py', 'analysis_tools/benchmark.py'])
def test_threads_spin_for_a_while_and_sleep_then(tool: str) -> None:
    """Torch reads how they wait when it is imported; who says it himself is heard."""
    names = ('OMP_WAIT_POLICY', 'GOMP_SPINCOUNT')
    for given, wanted in (((), 'None 3000'), (('ACTIVE',), 'ACTIVE None'), (('PASSIVE', '5'), 'PASSIVE 5')):
        environment = {key: value for key, value in os.environ.items() if key not in names}
        environment |= dict(zip(names, given, strict=False))
        command = [sys.executable, '-c', ORDER, str(TOOLS / tool)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
        assert done.stdout.startswith(f'waiting {wanted}\n'), done.stdout + done.stderr
