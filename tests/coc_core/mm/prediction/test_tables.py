"""The table of predictions: what is in it stays, whatever ends the process that writes it."""

import csv
import json

import pytest

from coc_core.errors import UserError
from coc_core.mm.prediction.inputs import Shard
from coc_core.mm.prediction.tables import Table

ALL = Shard()
RECORD = {'config': 'abc', 'checkpoint': 'def', 'tta': False}
NAMES = {'config': 'a.py', 'checkpoint': 'a.pth'}


def row(place, **more):
    return {'path': f'/{place}.png', 'frame': None, **more}


def open_table(folder, shard=ALL, record=RECORD, names=NAMES, overwrite=False):
    return Table(folder, shard, record, names, overwrite=overwrite)


def test_names_are_text_that_can_be_searched_whatever_they_are(tmp_path):
    table = open_table(tmp_path)
    rows = [row('Größe 猫'), row('no text: \udce9')]
    table.add(rows)
    table.close()
    assert 'Größe 猫' in table.path.read_text() and list(table.rows()) == rows
    assert open_table(tmp_path).done == {found['path'] for found in rows}


@pytest.fixture
def written(tmp_path):
    table = open_table(tmp_path)
    table.add([row(0), row(1)])
    table.add([{'path': '/film.mp4', 'frame': 7}])
    table.close()
    return table


def test_it_goes_on(written, tmp_path):
    again = open_table(tmp_path)
    assert again.done == {'/0.png', '/1.png', '/film.mp4\0007'}
    again.add([row(2)])
    again.close()
    assert [found['path'] for found in again.rows()] == ['/0.png', '/1.png', '/film.mp4', '/2.png']


@pytest.mark.parametrize('rest', ['{"path": "/2.png", "fra', '{"path": "/2.png", "frame": null}', '\0\0\0\0\n', '{}\n'])
def test_what_was_torn_off_is_dropped(written, tmp_path, rest):
    whole = written.path.read_bytes()
    written.path.write_bytes(whole + rest.encode())
    again = open_table(tmp_path)
    assert len(again.done) == 3 and written.path.read_bytes() == whole
    again.close()


def test_rows_are_there_before_the_table_is_closed(tmp_path):
    table = open_table(tmp_path)
    table.add([row(0)])
    assert len(list(table.rows())) == 1
    table.close()


def test_another_process_is_kept_out(tmp_path):
    table = open_table(tmp_path)
    with pytest.raises(UserError, match=r'predictions\.jsonl is being written by another process'):
        open_table(tmp_path)
    table.close()
    open_table(tmp_path).close()


@pytest.mark.parametrize(
    ('record', 'names', 'sentence'),
    [
        ({**RECORD, 'tta': True}, NAMES, r'made by something else \(tta was False and is True\)'),
        ({**RECORD, 'config': 'xyz'}, NAMES, r'\(config was a\.py and is another of that name\)'),
        ({**RECORD, 'checkpoint': 'x'}, {**NAMES, 'checkpoint': 'b.pth'}, r'\(checkpoint was a\.pth and is b\.pth\)'),
    ],
)
def test_it_was_made_by_something_else(written, tmp_path, record, names, sentence):
    with pytest.raises(UserError, match=sentence):
        open_table(tmp_path, record=record, names=names)
    assert len(list(written.rows())) == 3
    table = open_table(tmp_path, record=record, names=names, overwrite=True)
    assert not table.done and written.path.read_bytes() == b''
    table.close()
    open_table(tmp_path, record=record, names=names).close()


def test_the_same_under_another_name_is_the_same(written, tmp_path):
    open_table(tmp_path, names={'config': 'moved.py', 'checkpoint': 'moved.pth'}).close()


def test_a_table_without_a_record(tmp_path):
    (tmp_path / 'predictions.jsonl').write_text('mine\n')
    with pytest.raises(UserError, match=r'has no predictions\.run\.json that says what made it'):
        open_table(tmp_path)
    assert (tmp_path / 'predictions.jsonl').read_text() == 'mine\n'


def test_each_shard_has_files_of_its_own(tmp_path):
    tables = [open_table(tmp_path, Shard(index, 2)) for index in range(2)]
    for table in tables:
        table.close()
    assert [table.path.name for table in tables] == [
        'predictions-00000-of-00002.jsonl',
        'predictions-00001-of-00002.jsonl',
    ]
    with pytest.raises(UserError, match=r'holds predictions of 2 shard\(s\), but --num-shards is 3'):
        open_table(tmp_path, Shard(0, 3))
    open_table(tmp_path, Shard(0, 3), overwrite=True).close()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        'predictions-00000-of-00003.jsonl', 'predictions-00000-of-00003.run.json',
    ]  # fmt: skip


def test_csv_has_lists_as_text_and_no_masks(tmp_path):
    table = open_table(tmp_path)
    objects = [{'class': 'cat', 'box': [1.0, 2.0], 'mask': {'counts': 'x' * 200_000}}]
    table.add([row(0, count=1, objects=objects, classes={'cat': 1}), row('ö, "1"\n', count=0, objects=[], classes={})])
    table.close()
    path = table.write_csv()
    with path.open(newline='', encoding='utf-8') as file:
        first, second = csv.DictReader(file)
    assert first['count'] == '1' and first['frame'] == '' and json.loads(first['classes']) == {'cat': 1}
    assert json.loads(first['objects']) == [{'class': 'cat', 'box': [1.0, 2.0]}]
    assert second['path'] == '/ö, "1"\n.png' and second['objects'] == '[]'


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(UserError, match='cannot be written'):
        open_table(tmp_path / 'file' / 'out')
