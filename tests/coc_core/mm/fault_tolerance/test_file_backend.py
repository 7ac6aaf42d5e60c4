"""mmengine's files: whole or not at all, and no reason to end a training."""

import errno
import logging

import mmengine
import pytest
from mmengine.logging import MMLogger
from mmengine.registry import VISBACKENDS

from coc_core.errors import UserError
from coc_core.mm.fault_tolerance.file_backend import keep_logging


def test_files_of_mmengine_are_whole(tmp_path, monkeypatch):
    mmengine.dump(dict(a=1), tmp_path / 'a.json')

    def fails(*_):
        raise OSError(errno.ENOSPC, 'No space left on device')

    monkeypatch.setattr('coc_core.files.os.fsync', fails)
    with pytest.raises(UserError, match='cannot be written'):
        mmengine.dump(dict(a=2), tmp_path / 'a.json')
    assert mmengine.load(tmp_path / 'a.json') == dict(a=1) and len(list(tmp_path.iterdir())) == 1


def test_what_is_hidden_is_not_listed(tmp_path):
    for name in ('a/b.jpg', '.hidden/c.jpg', 'a/.hidden/d/e.jpg', '__MACOSX/f.jpg', 'a/._b.jpg'):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    backend = mmengine.fileio.get_file_backend(tmp_path)
    assert sorted(backend.list_dir_or_file(tmp_path, recursive=True)) == ['a', 'a/b.jpg']
    assert list(backend.list_dir_or_file(tmp_path / '.hidden')) == ['c.jpg']


def test_metrics_that_cannot_be_written_are_one_warning(tmp_path, caplog, monkeypatch):
    # mmengine's own loggers pass nothing on.
    monkeypatch.setattr(MMLogger, 'get_current_instance', lambda: logging.getLogger('run'))
    backend = VISBACKENDS.build(dict(type='LocalVisBackend', save_dir=str(tmp_path)))
    backend.add_scalar('loss', 1.0, step=1)
    scalars = tmp_path / 'scalars.json'
    assert scalars.read_text() == '{"loss": 1.0, "step": 1}\n'
    scalars.unlink()
    scalars.mkdir()
    with caplog.at_level(logging.WARNING):
        for step in (2, 3):
            backend.add_scalar('loss', 1.0, step=step)
    (message,) = caplog.messages
    assert 'scalars.json cannot be written (Is a directory): metrics are missing there' in message


def test_a_log_that_cannot_be_written_is_silent(capsys):
    logger = logging.Logger('run')
    logger.addHandler(logging.FileHandler('/dev/full'))
    keep_logging(logger)
    logger.warning('a line')
    logger.handlers[0].flush = lambda: None
    assert 'Logging error' not in capsys.readouterr().err


def test_the_death_of_a_data_worker_is_not_lost_in_a_line_that_logs(capsys):
    class Interrupted(logging.StreamHandler):
        error = None

        def emit(self, record):
            try:
                raise self.error
            except Exception:
                self.handleError(record)

    logger = logging.Logger('mine')
    logger.addHandler(Interrupted())
    keep_logging(logger)
    Interrupted.error = RuntimeError('DataLoader worker (pid 5) is killed by signal: Killed. ')
    with pytest.raises(RuntimeError, match='DataLoader worker'):
        logger.warning('a line')
    Interrupted.error = ValueError('a broken format')
    logger.warning('a line')
    assert 'a broken format' in capsys.readouterr().err
