"""How a tool ends: its exit code, and what the user reads."""

import subprocess
import sys
from argparse import Namespace

import pytest

from coc_core.errors import UserError
from coc_core.mm.cli.start import run_tool


def run(error=None, debug=False):
    def main(args):
        if error is not None:
            raise error

    return run_tool(main, Namespace(debug=debug))


@pytest.fixture(autouse=True)
def first_process(monkeypatch):
    monkeypatch.setenv('LOCAL_RANK', '0')


def test_a_tool_that_works_says_nothing(capsys):
    assert run() == 0
    assert capsys.readouterr() == ('', '')


def test_a_mistake_is_one_line(capsys):
    assert run(UserError('The image a.png\n  is truncated:  replace it.')) == 2
    assert capsys.readouterr() == ('', 'error: The image a.png is truncated: replace it.\n')


def test_debug_shows_the_trace_before_the_line(capsys):
    assert run(UserError('The image a.png is truncated.'), debug=True) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == 'Traceback (most recent call last):' and any('in main' in line for line in lines)
    assert lines[-1] == 'error: The image a.png is truncated.'


def test_a_mistake_in_a_worker_process_loses_its_trace(capsys):
    """As PyTorch raises it again in the main process."""
    caught = 'Caught UserError in DataLoader worker process 0.\nOriginal Traceback (most recent call last): ...\n'
    text = f'{caught}coc_core.errors.UserError: a.png is truncated.\n'
    assert run(UserError(text)) == 2
    assert capsys.readouterr().err == 'error: a.png is truncated.\n'


@pytest.mark.parametrize(
    'error', [KeyError('x'), ImportError('no module named x'), ValueError('x'), OSError('x')], ids=repr
)
def test_any_other_error_passes(capsys, error):
    with pytest.raises(type(error)) as caught:
        run(error)
    assert caught.value is error and capsys.readouterr().err == ''


def test_an_error_over_a_mistake_that_was_dealt_with_is_an_error():
    error = KeyError('x')
    error.__context__ = UserError('The image a.png is truncated.')
    with pytest.raises(KeyError):
        run(error)


def test_a_mistake_among_several_processes_ends_the_process_at_once():
    """As Gloo's threads may abort it while Python takes it down; what was to be done at the end is done."""
    program = """
import argparse, atexit, os
import torch.distributed
from torch.testing._internal.distributed import fake_pg
from coc_core.errors import UserError
from coc_core.mm.cli.start import run_tool

class Threads:
    def __del__(self):
        os.abort()

def main(args):
    torch.distributed.init_process_group('fake', store=fake_pg.FakeStore(), rank=0, world_size=2)
    raise UserError('Process 1 did not answer.')

threads = Threads()
atexit.register(print, 'written')
run_tool(main, argparse.Namespace(debug=False))
"""
    ended = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True)
    assert (ended.returncode, ended.stdout, ended.stderr) == (2, 'written\n', 'error: Process 1 did not answer.\n')
