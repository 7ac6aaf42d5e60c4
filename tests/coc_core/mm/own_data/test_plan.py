import pytest

from coc_core.errors import UserError
from coc_core.mm.own_data.plan import lines_writer


def test_lines_are_written_as_they_are(tmp_path):
    lines_writer(['Bär/a b.jpg 0', 'c.jpg 1'])(tmp_path / 'list.txt')
    assert (tmp_path / 'list.txt').read_bytes() == 'Bär/a b.jpg 0\nc.jpg 1\n'.encode()


@pytest.mark.parametrize('line', [' a.jpg 0', 'a\nb.jpg 0', 'a\u2028b.jpg 0', 'a\udcff.jpg 0'])
def test_a_name_that_a_list_would_not_keep_is_refused(line):
    with pytest.raises(UserError, match='cannot stand in a list of files'):
        lines_writer([line])
