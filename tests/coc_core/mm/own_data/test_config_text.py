from pathlib import Path

import pytest

from coc_core.mm.own_data.config_text import assigned, counted, literal, shell_word


def test_short_entries_take_one_line_and_long_ones_several():
    assert assigned('a', {'b': '1', 'c': {'d': "'e'"}}) == "a = dict(b=1, c=dict(d='e'))"
    long = assigned('a', {'b': repr('x' * 70), 'c': [{'d': repr('y' * 40)}, {'e': 'f'}]})
    assert long.splitlines() == [
        'a = dict(',
        f"    b='{'x' * 70}',",
        f"    c=[dict(d='{'y' * 40}'), dict(e=f)],",
        ')',
    ]
    assert all(len(line) <= 120 for line in long.splitlines())


@pytest.mark.parametrize('names', [['a'], ["it's", 'ä "b"', 'c\\d'], [f'class {i}' for i in range(200)]])
def test_class_names_are_read_again_as_they_were(names):
    text = f'classes = {literal(names, 10)}'
    scope = {}
    exec(text, scope)
    assert scope['classes'] == names and max(map(len, text.splitlines())) <= 120


def test_words():
    assert counted([str(i) for i in range(9)]) == '9 classes (0, 1, 2, 3, 4, ...)'
    assert shell_word(Path("it's/a b.py")) == "'it'\"'\"'s/a b.py'"
