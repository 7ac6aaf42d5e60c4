import pytest

from coc_core.errors import UserError
from coc_core.mm.own_data.class_lists import read_classes


def test_names_are_words_or_lines_of_a_file(tmp_path):
    file = tmp_path / 'names of classes'
    file.write_bytes('\ufeffBär\r\nblack cat\r\n\r\n'.encode())
    assert read_classes([str(file)]) == ['Bär', 'black cat']
    assert read_classes(['dog', 'black cat']) == ['dog', 'black cat']


@pytest.mark.parametrize(
    ('content', 'sentence'),
    [
        (b'', 'must have a name for each class'),
        (b'a\n\nb', 'must have a name for each class'),
        (b'a\nb\na', "has 'a' twice"),
        ('ä'.encode('latin-1'), 'is no text in UTF-8'),
    ],
)
def test_a_list_that_names_no_classes_is_a_sentence(tmp_path, content, sentence):
    (tmp_path / 'classes.txt').write_bytes(content)
    with pytest.raises(UserError, match=sentence):
        read_classes([str(tmp_path / 'classes.txt')])


def test_a_missing_list_is_a_sentence():
    with pytest.raises(UserError, match='nowhere/classes.txt cannot be read: No such file'):
        read_classes(['nowhere/classes.txt'])
