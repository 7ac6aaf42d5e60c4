"""What is said before an error that is nobody's mistake, and what is proposed after one that is."""

import pytest

from coc_core.errors import UserError, did_you_mean, during


def test_an_unexpected_error_is_placed_once(capsys):
    with pytest.raises(KeyError), during('training'), during('loading a sample'):
        raise KeyError('x')
    assert capsys.readouterr().err == 'error while loading a sample:\n'


def test_a_mistake_speaks_for_itself(capsys):
    with pytest.raises(UserError), during('training'):
        raise UserError('The image a.png is truncated: replace it.')
    assert capsys.readouterr().err == ''


def test_near_names():
    assert did_you_mean('coc_smal', ['coc_small', 'pointmlp']) == " Did you mean 'coc_small'?"
    assert did_you_mean('resnet', ['coc_small']) == ''
