"""The prediction tool in this process: its table, its parts, what it goes on with, and what it refuses."""

import csv
import errno
import importlib.util
import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from coc_core.files import replacing
from coc_core.mm.configs import load_config
from coc_core.mm.models import build_model
from coc_core.visualization.files import read_frames, write_film, write_image
from mmpretrain_plugin.predictions import ClassPredictions

ROOT = Path(__file__).parents[2]
DETECTOR = ROOT / 'configs' / 'detection' / 'mask-rcnn_coc-tiny-4_fpn_1xb4-8e_digits.py'
CONFIG = ROOT / 'configs' / 'classification' / 'coc-tiny_1xb32-12e_digits.py'


def untrained():
    torch.manual_seed(0)
    return build_model(load_config(str(CONFIG)), 'the digits')


def save(model, path):
    torch.save({'state_dict': model.state_dict(), 'meta': {}}, path)


def rows_of(out, name='predictions'):
    return [json.loads(line) for line in (out / f'{name}.jsonl').read_text().splitlines()]


@pytest.fixture(scope='module')
def tool():
    spec = importlib.util.spec_from_file_location('predict', ROOT / 'tools' / 'predict.py')
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    return tool


@pytest.fixture
def predict(tool, certain, monkeypatch, capsys):
    """Call the tool in this process with the classifier that is certain; return what it says on stderr."""

    def call(*arguments, expect=0, config=CONFIG, workers=0, pictures=False):
        common = ['--config', config, '--checkpoint', certain, '--workers', workers, '--batch-size', 4]
        common += [] if pictures else ['--no-pictures']
        monkeypatch.setattr(sys, 'argv', ['predict.py', *map(str, [*arguments, *common])])
        code = tool.main()
        told = capsys.readouterr()
        assert code == expect, told.err
        return told.out + told.err

    return call


@pytest.fixture(scope='module')
def certain(tmp_path_factory):
    """A classifier that gives every picture the same scores: 0.5 to class 3, 0.25 to class 1, little to the others."""
    path = tmp_path_factory.mktemp('certain') / 'model.pth'
    model = untrained()
    scores = [0.25 / 8] * 10
    scores[3], scores[1] = 0.5, 0.25
    with torch.no_grad():
        model.head.fc.weight.zero_()
        model.head.fc.bias.copy_(torch.tensor([math.log(score) for score in scores]))
    save(model, path)
    return path


@pytest.fixture
def folder(tmp_path):
    """Seven pictures in two folders, a film of six frames, and what is no picture."""
    folder = tmp_path / 'photos'
    random = np.random.default_rng(0)
    for place in range(7):
        path = folder / ('a' if place < 4 else 'b') / f'{place}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (20, 30, 3), dtype=np.uint8)).save(path)
    write_film(folder / 'film.gif', [random.integers(0, 256, (16, 16, 3), dtype=np.uint8) for _ in range(6)], rate=5)
    (folder / 'notes.md').write_text('notes')
    return folder


def test_the_table_by_hand(predict, folder, tmp_path):
    out = tmp_path / 'out'
    told = predict(
        folder / 'a' / '0.png', folder / 'film.gif', '--every', 3, '--top-k', 2, '--table', 'csv', '--out', out
    )
    assert f'3 predicted: {out / "predictions.jsonl"}, {out / "predictions.csv"}' in told
    common = {
        'class': '3', 'label': 3, 'score': 0.5,
        'top': [{'class': '3', 'label': 3, 'score': 0.5}, {'class': '1', 'label': 1, 'score': 0.25}],
    }  # fmt: skip
    film = {'path': str(folder / 'film.gif'), 'height': 16, 'width': 16, **common}
    expected = [
        {'path': str(folder / 'a' / '0.png'), 'frame': None, 'height': 20, 'width': 30, **common},
        {**film, 'frame': 0},
        {**film, 'frame': 3},
    ]
    assert rows_of(out) == expected
    with (out / 'predictions.csv').open(newline='') as file:
        cells = list(csv.DictReader(file))
    assert [(row['path'], row['frame'], row['score']) for row in cells] == [
        (row['path'], '' if row['frame'] is None else str(row['frame']), '0.5') for row in expected
    ]
    assert json.loads(cells[0]['top']) == common['top']


def test_what_is_done_is_not_done_again(predict, folder, tmp_path, monkeypatch):
    out = tmp_path / 'out'
    (folder / 'b' / 'broken.png').write_bytes(b'\x89PNG\r\n\x1a\nnothing')
    told = predict(folder, '--out', out, expect=1, workers=2)
    assert 'Passed over as no images: 1 .md.' in told and '13 predicted, 1 could not be predicted' in told
    assert f'{folder / "b" / "broken.png"} cannot be read as an image' in told and 'error while' not in told
    table = out / 'predictions.jsonl'
    lines = table.read_bytes().splitlines(keepends=True)
    assert len(lines) == 13
    # What a kill leaves: the last lines are missing, and one is torn.
    table.write_bytes(b''.join(lines[:9]) + lines[9][:-20])
    Image.new('RGB', (8, 8)).save(folder / 'b' / 'broken.png')
    told = predict(folder, '--out', out)
    assert '5 predicted (9 were there before)' in told
    assert table.read_bytes().splitlines(keepends=True)[:9] == lines[:9]
    keys = [(row['path'], row['frame']) for row in rows_of(out)]
    assert len(keys) == len(set(keys)) == 14
    assert '0 predicted (14 were there before)' in predict(folder, '--out', out)


def test_other_settings_are_told_and_overwritten_on_demand(predict, folder, tmp_path):
    out = tmp_path / 'out'
    predict(folder / 'a', '--out', out)
    told = predict(
        folder / 'a', '--out', out, '--top-k', 3, '--cfg-options', 'model.backbone.denominator=count', expect=2
    )
    assert 'config was' in told and 'is another of that name; top_k was 5 and is 3)' in told and '--overwrite' in told
    told = predict(folder / 'a', '--out', out, '--num-shards', 2, '--shard', 0, expect=2)
    assert f'{out} holds predictions of 1 shard(s), but --num-shards is 2' in told
    assert '4 predicted:' in predict(folder / 'a', '--out', out, '--top-k', 3, '--overwrite')
    assert [len(row['top']) for row in rows_of(out)] == [3] * 4


def test_shards_have_everything_once(predict, folder, tmp_path):
    out = tmp_path / 'out'
    parts = []
    for shard in range(3):
        predict(folder, '--out', out, '--num-shards', 3, '--shard', shard, workers=shard)
        parts.append(rows_of(out, f'predictions-{shard:05d}-of-00003'))
    keys = [(row['path'], row['frame']) for part in parts for row in part]
    assert len(keys) == len(set(keys)) == 13
    assert {frame for path, frame in keys if path.endswith('.gif')} == set(range(6)) and all(parts)


def test_a_frame_is_predicted_as_its_picture(tool, folder, tmp_path):
    checkpoint = tmp_path / 'model.pth'
    save(untrained(), checkpoint)
    paths = [tmp_path / f'{place}.png' for place in range(6)]
    for path, frame in zip(paths, read_frames(folder / 'film.gif'), strict=True):
        Image.fromarray(frame).save(path)
    predictor = tool.Predictor.from_config(str(CONFIG), str(checkpoint), device='cpu')
    film = predictor.rows([str(folder / 'film.gif')])
    assert [row['top'] for row in film] == [row['top'] for row in predictor.rows([str(path) for path in paths])]
    assert len({str(row['top']) for row in film}) == 6
    (lost,) = predictor.rows([str(tmp_path / 'lost.png')])
    assert lost['path'] == str(tmp_path / 'lost.png') and 'does not exist' in lost['problem']


@pytest.fixture
def draw(predict, monkeypatch):
    """Call the tool with pictures that are drawn by a function of an image and a file."""

    def call(draw, *arguments, expect=0):
        monkeypatch.setattr(ClassPredictions, 'draw', lambda self, image, sample, path: draw(image, path))
        return predict(*arguments, expect=expect, pictures=True)

    return call


def test_a_picture_that_cannot_be_drawn_is_told_and_the_others_are(draw, folder, tmp_path):
    out = tmp_path / 'out'
    Image.new('RGB', (31, 20)).save(folder / 'a' / '0.png')

    def some(image, path):
        if image.shape[1] == 31:
            raise ZeroDivisionError('too wide')
        write_image(path, image)

    told = draw(some, folder / 'a', '--out', out, expect=1)
    assert '0.png is predicted, but its picture cannot be drawn (ZeroDivisionError: too wide).' in told
    assert '4 predicted, 1 without a picture: ' in told
    rows = rows_of(out)
    assert [row['picture'] for row in rows] == [None, *(f'pictures/{place}.png.jpg' for place in (1, 2, 3))]
    assert all((out / row['picture']).is_file() for row in rows[1:])


def test_pictures_none_of_which_can_be_drawn_keep_the_trace_and_no_rows(draw, folder, tmp_path, capsys):
    def never(image, path):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        draw(never, folder, '--out', tmp_path / 'out')
    assert 'error while drawing the first picture:' in capsys.readouterr().err
    assert rows_of(tmp_path / 'out') == []


def test_a_disk_that_takes_no_picture_ends_the_run(draw, folder, tmp_path):
    def full(image, path):
        with replacing(path):
            raise OSError(errno.ENOSPC, 'No space left on device')

    told = draw(full, folder, '--out', tmp_path / 'out', expect=2)
    assert 'pictures/film.gif/000000.jpg cannot be written: No space left on device' in told
    assert rows_of(tmp_path / 'out') == []


@pytest.mark.parametrize(
    ('arguments', 'sentence'),
    [
        (['nowhere'], 'The input nowhere does not exist.'),
        (['*.nothing'], 'The pattern *.nothing matches no file.'),
        (['{folder}/empty'], '/empty holds no images (.png, '),
        (['{folder}', '--num-shards', '2'], '--num-shards 2 needs --shard I, from 0 to 1.'),
        (['{folder}', '--num-shards', '2', '--shard', '2'], '--shard 2 must be from 0 to 1'),
        (['{folder}', '--every', '0'], '--every 0 must be at least 1.'),
        (['{folder}', '--top-k', '0'], '--top-k 0 must be at least 1.'),
        (['{folder}', '--score', '0.5'], '--score 0.5 is the least score of an object, and this model finds no'),
        (['{folder}', '--device', 'abacus'], '--device abacus cannot be used ('),
        (['{folder}', '--out', '{folder}/notes.md'], 'notes.md is a file: name a folder.'),
    ],
)
def test_usage_errors(predict, folder, tmp_path, arguments, sentence):
    (folder / 'empty').mkdir()
    told = predict(*(word.format(folder=folder) for word in ['--out', str(tmp_path / 'out'), *arguments]), expect=2)
    assert sentence in told and 'Traceback' not in told


def test_masks_are_not_averaged(predict, folder):
    told = predict(
        folder, '--tta', expect=2, config=ROOT / 'configs' / 'detection' / 'mask-rcnn_coc-tiny-4_fpn_1xb4-8e_digits.py'
    )
    assert 'error: --tta: mmdet averages boxes but no masks' in told
