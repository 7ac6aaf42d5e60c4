"""One training at a time in a work folder."""

import errno
import fcntl
import subprocess
import sys
from pathlib import Path

from coc_core.mm.fault_tolerance.locking import lock

ROOT = Path(__file__).parents[4]
HOLDS = """
import sys, time
from coc_core.mm.fault_tolerance.locking import lock
lock(sys.argv[1])
print('held', flush=True)
time.sleep(100)
"""


def test_a_second_training_in_a_folder_is_told_until_the_first_is_killed(project, capfd):
    work = project.folder / 'held'
    with subprocess.Popen([sys.executable, '-c', HOLDS, work], cwd=ROOT, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b'held\n'
        for arguments in ([], ['--resume'], ['--overwrite']):
            # Starting it again may help, unlike after a mistake.
            assert project.train(str(project.folder / 'base.py'), 'held', *arguments) == 1
            assert f'Another process trains in {work} at this moment' in capfd.readouterr().err
        assert not list(work.glob('*.pth'))
        other.kill()
    lock(str(work))


def test_a_process_that_it_starts_does_not_hold_the_folder(tmp_path):
    starts = HOLDS.replace('time.sleep(100)', 'import os\nif os.fork():\n    os._exit(0)\ntime.sleep(100)')
    with subprocess.Popen([sys.executable, '-c', starts, tmp_path], cwd=ROOT, stdout=subprocess.DEVNULL) as other:
        assert other.wait() == 0
        lock(str(tmp_path))


def test_where_the_disk_knows_no_locks_training_goes_on(tmp_path, monkeypatch):
    def refuse(*args):
        raise OSError(errno.ENOLCK, 'No locks available')

    monkeypatch.setattr(fcntl, 'lockf', refuse)
    lock(str(tmp_path))
