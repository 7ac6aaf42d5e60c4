"""Which files and samples are predicted, and by whom."""

import os
from collections import Counter

import numpy as np
import pytest

from coc_core.errors import UserError
from coc_core.mm.prediction.inputs import Found, Item, Shard, expected_count, find_files, in_batches, items_of

ALL = Shard()


class Letters:
    """Text files that are one sample, and lists that are one for each line."""

    noun = 'letters'
    endings = ('.txt', '.list')

    def has_several(self, path):
        return path.suffix == '.list'

    def count(self, path):
        return len(path.read_text().splitlines())

    def contents(self, path):
        for line in path.read_text().splitlines():
            if line == '?':
                raise UserError(f'{path} is torn.')
            yield np.array([int(line)])


@pytest.fixture
def folder(tmp_path):
    for name in ('b/2.txt', 'b/1.TXT', 'a/3.txt', 'c.txt', 'c.md', 'LICENSE', '.hidden.txt', '.git/4.txt', 'out/5.txt'):
        path = tmp_path / 'in' / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text('0')
    return tmp_path / 'in'


def names(found):
    return [found.name(path) for path in found.paths]


def test_folders_in_order_without_what_is_hidden_or_written_there(folder):
    found = find_files([str(folder)], Letters(), leave_out=folder / 'out')
    assert names(found) == ['c.txt', 'a/3.txt', 'b/1.TXT', 'b/2.txt']
    assert found.root == str(folder) and found.passed_over == Counter({'.md': 1, 'LICENSE': 1})


def test_files_folders_and_patterns_have_one_root_and_each_file_once(folder, monkeypatch):
    monkeypatch.chdir(folder)
    inputs = ['c.md', 'b', 'b/1.TXT', '[ab]/*.txt', '**/*.TXT']
    found = find_files(inputs, Letters(), leave_out=folder / 'out')
    assert names(found) == ['c.md', 'b/1.TXT', 'b/2.txt', 'a/3.txt']
    assert found.root == str(folder)
    assert find_files(['b/*.txt'], Letters(), leave_out=folder).root == str(folder / 'b')


def test_a_file_may_have_the_name_of_a_pattern(folder):
    (folder / '[a].txt').write_text('0')
    assert names(find_files([str(folder / '[a].txt')], Letters(), leave_out=folder / 'out')) == ['[a].txt']


def test_links_are_followed_once(folder):
    (folder / 'a' / 'up').symlink_to(folder)
    (folder / 'a' / 'other').symlink_to(folder / 'b')
    found = find_files([str(folder)], Letters(), leave_out=folder / 'out')
    assert names(found) == ['c.txt', 'a/3.txt', 'a/other/1.TXT', 'a/other/2.txt', 'b/1.TXT', 'b/2.txt']


@pytest.mark.parametrize(
    ('name', 'sentence'),
    [
        ('nowhere', 'The input nowhere does not exist.'),
        ('*.jpg', r'The pattern \*.jpg matches no file.'),
        ('empty', r'The folder empty holds no letters \(.txt, .list\).'),
    ],
)
def test_what_stands_for_nothing(folder, monkeypatch, name, sentence):
    monkeypatch.chdir(folder)
    (folder / 'empty').mkdir()
    with pytest.raises(UserError, match=sentence):
        find_files([name], Letters(), leave_out=folder / 'out')


@pytest.fixture
def lists(tmp_path):
    (tmp_path / 'x.txt').write_text('')
    (tmp_path / 'seven.list').write_text('\n'.join('0123456'))
    (tmp_path / 'torn.list').write_text('0\n?\n2')
    return Found(str(tmp_path), [str(tmp_path / name) for name in ('seven.list', 'torn.list', 'x.txt')])


def take(found, shard=ALL, done=(), every=1):
    told = []
    items = items_of(found, Letters(), shard=shard, done=done, every=every, tell=lambda *problem: told.append(problem))
    return [(os.path.basename(item.path), item.place) for item in items], told


def test_samples_of_files_of_several(lists):
    items, told = take(lists, every=3)
    assert items == [('seven.list', 0), ('seven.list', 3), ('seven.list', 6), ('torn.list', 0), ('x.txt', None)]
    ((item, sentence),) = told
    assert item == Item(lists.paths[1]) and sentence == f'{lists.paths[1]} is torn.'
    done = {Item(lists.paths[0], 3).key, lists.paths[2]}
    assert take(lists, done=done, every=3)[0] == [('seven.list', 0), ('seven.list', 6), ('torn.list', 0)]
    assert expected_count(lists, Letters(), shard=Shard(), every=1) == 11


def test_shards_are_a_partition_that_other_files_do_not_change(lists):
    whole = take(lists)[0]
    parts = [take(lists, Shard(index, 3))[0] for index in range(3)]
    assert sorted(map(str, whole)) == sorted(str(item) for part in parts for item in part)
    # A film of seven frames is shared.
    assert sorted(sum(name == 'seven.list' for name, _ in part) for part in parts) == [2, 2, 3]
    fewer = Found(lists.root, lists.paths[:1])
    assert [take(fewer, Shard(index, 3))[0] for index in range(3)] == [
        [item for item in part if item[0] == 'seven.list'] for part in parts
    ]


def test_batches_are_kept_before_they_are_loaded():
    kept = []
    batches = in_batches([Item(str(place)) for place in range(5)], 2, kept.append)
    first = next(batches)
    assert kept == [first] and [len(batch) for batch in batches] == [2, 1] and len(kept) == 3
