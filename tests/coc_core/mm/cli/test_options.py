"""The options that the tools have in common."""

import argparse

import pytest

from coc_core.mm.cli.options import add_common_arguments


@pytest.fixture
def parser():
    parser = argparse.ArgumentParser()
    add_common_arguments(parser)
    return parser


def test_options_have_the_types_that_mmengine_gives_them(parser):
    options = ['a.b=1', 'c=1e-3', 'd=[1,2]', 'e=None', 'f=true', 'g=x=y']
    assert parser.parse_args(['--cfg-options', *options]).cfg_options == {
        'a.b': 1, 'c': 1e-3, 'd': [1, 2], 'e': None, 'f': True, 'g': 'x=y',
    }  # fmt: skip


def test_silence_changes_nothing(parser):
    args = parser.parse_args([])
    assert args.cfg_options == {} and args.work_dir is None and args.launcher == 'none' and args.debug is False


@pytest.mark.parametrize(
    ('arguments', 'sentence'),
    [
        (['--cfg-options', 'a=1', 'b'], "argument --cfg-options: 'b' is not of the form key=value"),
        (['--launcher', 'ssh'], "invalid choice: 'ssh'"),
    ],
)
def test_usage_errors(parser, capsys, arguments, sentence):
    with pytest.raises(SystemExit, match='2'):
        parser.parse_args(arguments)
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize('spelling', ['--local_rank', '--local-rank'])
def test_torchs_launchers_name_the_process_either_way(parser, spelling):
    assert parser.parse_args([f'{spelling}=3']).local_rank == 3
