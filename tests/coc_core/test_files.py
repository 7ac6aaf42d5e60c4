"""Files are written whole or not at all, and are on the disk before they take their place."""

import os

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
    with pytest.raises(UserError, match='cannot be written'):
        write_bytes(path / 'below-a-file.txt', b'')


def test_content_reaches_the_disk_before_the_name(tmp_path, monkeypatch):
    steps = []
    flush, move = os.fsync, os.replace
    monkeypatch.setattr(os, 'fsync', lambda handle: (steps.append('flush'), flush(handle)))
    monkeypatch.setattr(os, 'replace', lambda *paths: (steps.append('move'), move(*paths)))
    write_bytes(tmp_path / 'a', b'content')
    assert steps == ['flush', 'move', 'flush']
