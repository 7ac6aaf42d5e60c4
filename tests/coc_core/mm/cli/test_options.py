"""The options that the tools have in common."""

import argparse

import pytest

from coc_core.mm.cli.options import add_common_arguments
from coc_core.mm.option_values import OptionText


@pytest.fixture
def parser():
    parser = argparse.ArgumentParser()
    add_common_arguments(parser)
    return parser


def test_options_are_split_at_the_first_sign_and_their_texts_kept(parser):
    options = ['a.b=1', 'c=my data,x', 'd=x=y', 'e=', 'a.b=2']
    assert parser.parse_args(['--cfg-options', *options, '--cfg-options', 'c=z']).cfg_options == {
        'a.b': OptionText('2'), 'c': OptionText('z'), 'd': OptionText('x=y'), 'e': OptionText(''),
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
