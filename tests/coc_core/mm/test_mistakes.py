"""A wrong name in a config is one sentence; an error in somebody's code keeps its type and its trace."""

import traceback

import mmengine.visualization  # noqa: F401  registers its classes
import pytest
from mmengine.registry import VISUALIZERS, Registry

from coc_core.errors import UserError
from coc_core.mm.mistakes import building

THINGS = Registry('thing', locations=['builtins'])


@THINGS.register_module()
class Sound:
    def __init__(self, size):
        self.size = size


@THINGS.register_module()
class Faulty:
    def __init__(self, error):
        raise error


def build(**cfg):
    with building('the model of a.py'):
        return THINGS.build(cfg)


@pytest.mark.parametrize(
    ('cfg', 'reason'),
    [
        (dict(type='Sond', size=1), 'Sond is not in the .*thing registry'),
        (dict(type='Sound', syze=1), r".*unexpected keyword argument 'syze'(\. Did you mean 'size')?"),
        (dict(type='Sound'), r".*missing 1 required positional argument: 'size'"),
        (dict(size=1), '.*must contain the key "type"'),
    ],
)
def test_a_wrong_name_is_one_sentence(cfg, reason):
    sentence = f'^The model of a.py cannot be built: {reason}[^.]*[.?] Correct the config; what .* needs _delete_=True'
    with pytest.raises(UserError, match=sentence) as caught:
        build(**cfg)
    assert 'Please check' not in str(caught.value)


@pytest.mark.parametrize('kind', [KeyError, TypeError, ValueError, AttributeError])
def test_an_error_inside_a_class_is_its_own(capsys, kind):
    with pytest.raises(kind, match='a slip') as caught:
        build(type='Faulty', error=kind('a slip'))
    assert not isinstance(caught.value, UserError)
    assert traceback.extract_tb(caught.value.__traceback__)[-1].filename == __file__
    assert capsys.readouterr().err == 'error while building the model of a.py:\n'


def test_a_mistake_that_a_class_tells_is_told_as_it_stands(capsys):
    with pytest.raises(UserError, match=r'^center_grid=0 must be positive\.$'):
        build(type='Faulty', error=UserError('center_grid=0 must be positive.'))
    assert 'cannot be built' not in capsys.readouterr().err


def test_an_error_raised_after_a_mistake_was_caught_keeps_its_trace():
    def recover():
        try:
            raise UserError('center_grid=0 must be positive.')
        except UserError:
            return {}['no such key']

    with pytest.raises(KeyError, match='no such key'), building('the model of a.py'):
        recover()


def test_an_argument_that_an_installed_class_hands_on_to_its_base_is_one_sentence():
    sentence = "^The visualizer cannot be built: .*unexpected keyword argument 'nonsense'"
    with pytest.raises(UserError, match=sentence), building('the visualizer'):
        VISUALIZERS.build(dict(type='Visualizer', name='of this test', nonsense=1))
