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
            print('waiting', os.environ.get('OMP_WAIT_POLICY'))

sys.meta_path.insert(0, Finder())
sys.argv = [sys.argv[1], '--help']
runpy.run_path(sys.argv[0], run_name='__main__')
"""


@pytest.mark.parametrize('tool', ['train.py', 'test.py', 'predict.py', 'analysis_tools/benchmark.py'])
def test_threads_sleep_while_they_wait(tool: str) -> None:
    """Torch reads how they wait when it is imported; who says it himself is heard."""
    for given, wanted in ((None, 'PASSIVE'), ('ACTIVE', 'ACTIVE')):
        environment = {key: value for key, value in os.environ.items() if key != 'OMP_WAIT_POLICY'}
        environment |= {'OMP_WAIT_POLICY': given} if given else {}
        command = [sys.executable, '-c', ORDER, str(TOOLS / tool)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
        assert done.stdout.startswith(f'waiting {wanted}\n'), done.stdout + done.stderr
