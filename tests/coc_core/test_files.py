"""Files are written whole or not at all, and are on the disk before they take their place."""

import os
import signal
import subprocess
import sys

import pytest

from coc_core.errors import UserError
from coc_core.files import replacing, write_bytes


def test_a_file_is_complete_or_as_it_was(tmp_path):
    path = tmp_path / 'new' / 'file.txt'
    write_bytes(path, b'old')

    def write_half(error):
        with replacing(path) as beside:
            beside.write_text('half')
            raise error

    with pytest.raises(UserError, match=r'file.txt cannot be written: No space left on device \(.* MB are free\)\.'):
        write_half(OSError(28, 'No space left on device'))
    with pytest.raises(KeyError):
        write_half(KeyError('an error of whoever writes'))
    assert path.read_bytes() == b'old'
    assert list(path.parent.iterdir()) == [path]
    with pytest.raises(UserError, match=f'^{path} cannot be written'), replacing(path) as beside, replacing(beside):
        raise OSError(28, 'No space left on device')
    with pytest.raises(UserError, match='cannot be written'):
        write_bytes(path / 'below-a-file.txt', b'')


WRITER = """
import subprocess, sys, time
from pathlib import Path
from coc_core.files import replacing
with replacing(Path(sys.argv[1])) as beside:
    beside.write_text('half')
    print('begun', flush=True)
    time.sleep(60)
"""


def test_sigterm_leaves_nothing_half_written(tmp_path):
    process = subprocess.Popen([sys.executable, '-c', WRITER, tmp_path / 'file'], stdout=subprocess.PIPE)
    process.stdout.readline()
    assert len(list(tmp_path.iterdir())) == 1
    process.terminate()
    process.communicate(timeout=60)
    assert process.returncode == 143 and not list(tmp_path.iterdir())


def test_whoever_listens_for_sigterm_keeps_it(tmp_path):
    heard = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
    try:
        with replacing(tmp_path / 'file') as beside:
            beside.touch()
            os.kill(os.getpid(), signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert heard == [signal.SIGTERM] and (tmp_path / 'file').exists()


def test_content_reaches_the_disk_before_the_name(tmp_path, monkeypatch):
    steps = []
    flush, move = os.fsync, os.replace
    monkeypatch.setattr(os, 'fsync', lambda handle: (steps.append('flush'), flush(handle)))
    monkeypatch.setattr(os, 'replace', lambda *paths: (steps.append('move'), move(*paths)))
    write_bytes(tmp_path / 'a', b'content')
    assert steps == ['flush', 'move', 'flush']
