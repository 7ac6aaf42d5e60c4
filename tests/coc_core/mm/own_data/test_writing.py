import pytest

from coc_core.errors import UserError
from coc_core.mm.own_data.writing import check_absent, written


def text(content):
    return lambda path: path.write_text(content)


def test_all_files_are_written(tmp_path):
    files = {tmp_path / 'a' / 'list.txt': text('list'), tmp_path / 'a.py': text('config')}
    check_absent(files)
    with written(files):
        pass
    assert [path.read_text() for path in files] == ['list', 'config']
    with pytest.raises(UserError, match=r'list.txt exists already: .* --overwrite'):
        check_absent(files)


@pytest.mark.parametrize('error', [ValueError, KeyboardInterrupt])
def test_a_failure_leaves_everything_as_it_was(tmp_path, error):
    (tmp_path / 'a.py').write_text('earlier')

    def use():
        with written({tmp_path / 'b' / 'c' / 'x': text('new'), tmp_path / 'a.py': text('new')}):
            assert (tmp_path / 'a.py').read_text() == 'new'
            raise error

    with pytest.raises(error):
        use()
    assert [path.name for path in tmp_path.iterdir()] == ['a.py'] and (tmp_path / 'a.py').read_text() == 'earlier'


def test_a_writer_that_fails_leaves_nothing(tmp_path):
    def fail(path):
        raise UserError('torn')

    with pytest.raises(UserError, match='torn'), written({tmp_path / 'a': text('a'), tmp_path / 'b': fail}):
        pytest.fail('the block ran')
    assert not list(tmp_path.iterdir())
