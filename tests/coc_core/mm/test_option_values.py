"""Texts of ``--cfg-options``: what each means for the entry that it replaces, and which are refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coc_core.errors import UserError
from coc_core.mm.option_values import OptionText, read_option

STEPS = [8, 11]
NAMES = ['cat', 'dog']
HOOKS = [{'type': 'A'}]


def read(text, entry=None):
    return read_option('a.b', OptionText(text), entry)


@pytest.mark.parametrize(
    ('text', 'entry', 'value'),
    [
        # A string stood there: the text as it is.
        ('data/my data', 'data', 'data/my data'),
        ('data/a,b', 'data', 'data/a,b'),
        ('2023', 'data', '2023'),
        (' 2023 ', 'data', '2023'),
        ('007', 'data', '007'),
        ('True', 'data', 'True'),
        ('nan', 'data', 'nan'),
        ('', 'data', ''),
        ('x=y', 'data', 'x=y'),
        ('[old', 'data', '[old'),
        ('{date}/x', 'data', '{date}/x'),
        ('(a)b(c)', 'data', '(a)b(c)'),
        ("it's", 'data', "it's"),
        ("'quoted, too'", 'data', 'quoted, too'),
        ('None', 'data', None),
        ("'None'", 'data', 'None'),
        ('[bbox,segm]', 'bbox', ['bbox', 'segm']),
        ("{'dims': 2023}", 'coc_tiny', {'dims': 2023}),
        # Nothing, or None, stood there: Python's literals, and OpenMMLab's words.
        ('coc_small', None, 'coc_small'),
        ('a b', None, 'a b'),
        ('2023', None, 2023),
        ("'2023'", None, '2023'),
        ('1e-3', None, 1e-3),
        ('inf', None, float('inf')),
        ('0x10', None, 16),
        ('8#2', None, '8#2'),
        ('1+2j', None, '1+2j'),
        ('true', None, True),
        ('FALSE', None, False),
        ('None', None, None),
        ('none', None, 'none'),
        ('1,2,3', None, [1, 2, 3]),
        ('a,', None, ['a']),
        ("it's, he's", None, ["it's", "he's"]),
        ("'a,b'", None, 'a,b'),
        ('[a,b]', None, ['a', 'b']),
        ('(a,b)', None, ('a', 'b')),
        ('(5)', None, (5,)),
        ('[(1,2),(3,4)]', None, [(1, 2), (3, 4)]),
        ("['black cat','dog']", None, ['black cat', 'dog']),
        ("[{'type': 'x,]y'}, it's]", None, [{'type': 'x,]y'}, "it's"]),
        # A list or a tuple stood there.
        ('8,11', STEPS, [8, 11]),
        ('8,11', (1, 2), (8, 11)),
        ('(8,11)', STEPS, (8, 11)),
        ('8e0,11', STEPS, [8, 11]),
        ('[(1,2),(3,4)]', STEPS, [(1, 2), (3, 4)]),
        ("['black cat','dog']", NAMES, ['black cat', 'dog']),
        ('black cat, dog', NAMES, ['black cat', 'dog']),
        ('2023,2024', ('cat',), ('2023', '2024')),
        ('[2023,None]', NAMES, ['2023', None]),
        ('2023,2024', [None, 'cat'], ['2023', '2024']),
        ('0,1', (0.5, 0.5), (0.0, 1.0)),
        ('4,1', (1, 0.5), (4, 1)),
        ('512', (512, 512), 512),
        ('[]', HOOKS, []),
        ("[{'type': 'B'}]", HOOKS, [{'type': 'B'}]),
        ("{'type': 'B'}", HOOKS, {'type': 'B'}),
        ('None', STEPS, None),
        # A number, a bool or a dict stood there.
        ('3', 12, 3),
        ('2e4', 12, 20000),
        ('0.5', 1, 0.5),
        ('1', 0.1, 1.0),
        ('(64,64)', 64, (64, 64)),
        ("{'img': 0}", 0, {'img': 0}),
        ('None', 1, None),
        ('false', True, False),
        ('[True,False]', True, [True, False]),
        ("{'backend': 'inductor'}", False, {'backend': 'inductor'}),
        ("{'lr': 1}", {'lr': 0.1, 'type': 'SGD'}, {'lr': 1.0}),
        ("{'_delete_': True, 'lr': 'x'}", {'lr': 0.1}, {'_delete_': True, 'lr': 'x'}),
        ("[{'type': 'B'}]", {'type': 'A'}, [{'type': 'B'}]),
        ('coc_tiny', {'dims': (8, 16)}, 'coc_tiny'),
        ('x', print, 'x'),
    ],
)
def test_a_text_is_read_for_the_entry_that_it_replaces(text, entry, value):
    # Of floats and ints, and of lists and tuples, repr tells the type.
    assert repr(read(text, entry)) == repr(value)


@pytest.mark.parametrize(
    ('text', 'entry', 'sentence'),
    [
        ('ten', 12, "a.b is a number (12), and 'ten' is a string: write a number."),
        ('', 12, "a.b is a number (12), and '' is a string: write a number."),
        ('True', 12, 'a.b is a number (12), and True is a bool: write a number.'),
        ('[a,b]', 64, "a.b is a number (64), and 'a' is a string: write a number."),
        ('Flase', True, "a.b is a bool (True), and 'Flase' is a string: write True or False."),
        ('1', True, 'a.b is a bool (True), and 1 is a number: write True or False.'),
        ('3', {'x': 1}, "a.b is a dict ({'x': 1}), and 3 is a number: write a.b.NAME=VALUE."),
        ("{'x': 'y'}", {'x': 1}, "a.b.x is a number (1), and 'y' is a string: write a number."),
        ('8', STEPS, 'a.b is a list ([8, 11]), and 8 is a number: write a.b=[8].'),
        ('8,1l', STEPS, "a.b is a list ([8, 11]), and '1l' is a string: write a number for each item, in brackets."),
        ('cat', NAMES, "a.b is a list (['cat', 'dog']), and 'cat' is a string: write a.b=[cat]."),
        ('cat', ('cat',), "a.b is a tuple (('cat',)), and 'cat' is a string: write a.b=[cat]."),
        ("'[cat,dog]'", NAMES, "a.b is a list (['cat', 'dog']), and '[cat,dog]' is a string: write a.b=[cat,dog]."),
        ('[1]', HOOKS, "a.b is a list ([{'type': 'A'}]), and 1 is a number: write a.b=[{'name': value}]."),
        ('[8,11', STEPS, 'the brackets do not match; put quotes around a string that has brackets.'),
        ('run(1', None, 'the brackets do not match; put quotes around a string that has brackets.'),
        ('8,,11', STEPS, "nothing stands before a comma; write '' for an empty string."),
        ('{x: 1}', {'x': 1}, "this is no dict: write {'name': value}, with quotes around every name and string."),
        ('dict(x=1)', None, "this is no dict: write {'name': value}, with quotes around every name and string."),
    ],
)
def test_a_text_that_cannot_stand_there_is_refused_with_what_can(text, entry, sentence):
    with pytest.raises(UserError) as caught:
        read(text, entry)
    assert str(caught.value) == f'--cfg-options a.b={text}: {sentence}'


LITERALS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(LITERALS)
def test_a_literal_of_python_is_read_as_python_reads_it(value):
    assert repr(read(repr(value))) == repr(value)
