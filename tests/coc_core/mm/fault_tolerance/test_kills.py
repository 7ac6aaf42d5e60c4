"""A dozen kills: at random moments, and around what a training does to files. kill_loop.py does hundreds."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

LOOP = Path(__file__).with_name('kill_loop.py')


@pytest.mark.parametrize('arguments', [('--kills', '4'), ('--at', 'boundaries', '--every', '25')])
def test_a_kill_costs_at_most_one_interval_and_changes_nothing(arguments):
    environment = {**os.environ, 'OMP_NUM_THREADS': '1', 'CUDA_VISIBLE_DEVICES': ''}
    done = subprocess.run(
        [sys.executable, str(LOOP), *arguments], capture_output=True, text=True, env=environment, timeout=500
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    report = json.loads(done.stdout.splitlines()[-1])
    assert report['kills'] >= 4 and report['trainings'] >= 1
    # A checkpoint every five steps: the first of an epoch to the last.
    assert report['differences'] == [] and report['most_lost'] <= 5
