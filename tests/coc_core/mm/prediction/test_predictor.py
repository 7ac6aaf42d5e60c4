"""A predictor around a real classifier of digits."""

import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from coc_core.errors import UserError
from coc_core.mm.configs import load_config
from coc_core.mm.models import build_model
from coc_core.mm.prediction.inputs import Item
from coc_core.mm.prediction.predictor import Predictor, _predictions_of
from coc_core.mm.task import Task

CONFIG = str(Path(__file__).parents[4] / 'configs' / 'classification' / 'coc-tiny_1xb32-12e_digits.py')
NAMES = [f'number {digit}' for digit in range(10)]


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp('predictor') / 'model.pth'
    torch.manual_seed(0)
    model = build_model(load_config(CONFIG), CONFIG)
    torch.save({'state_dict': model.state_dict(), 'meta': {'dataset_meta': {'classes': NAMES}}}, path)
    return str(path)


@pytest.fixture
def pictures(tmp_path):
    random = np.random.default_rng(0)
    paths = [tmp_path / f'{place}.png' for place in range(4)]
    for path in paths:
        Image.fromarray(random.integers(0, 256, (20, 20, 3), dtype=np.uint8)).save(path)
    return [str(path) for path in paths]


def scores(row):
    return {entry['label']: entry['score'] for entry in row['top']}


def test_augmented_copies_are_averaged(checkpoint, pictures, tmp_path):
    flipped = str(tmp_path / 'flipped.png')
    Image.open(pictures[0]).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(flipped)
    one = Predictor.from_config(CONFIG, checkpoint, device='cpu', top_k=10)
    both = Predictor.from_config(CONFIG, checkpoint, device='cpu', top_k=10, tta=True)
    first, second = map(scores, one.rows([pictures[0], flipped]))
    (mean,) = map(scores, both.rows(pictures[:1]))
    assert first != second
    assert all(mean[label] == pytest.approx((first[label] + second[label]) / 2, abs=2e-6) for label in range(10))


def test_classes_are_the_configs_and_else_the_checkpoints(checkpoint, pictures, tmp_path):
    (row,) = Predictor.from_config(CONFIG, checkpoint, device='cpu').rows(pictures[:1])
    assert row['class'] == str(row['label'])
    silent = {'test_dataloader.dataset.metainfo': None}
    (named,) = Predictor.from_config(CONFIG, checkpoint, silent, device='cpu').rows(pictures[:1])
    assert named['class'] == NAMES[row['label']]
    torch.save({'state_dict': torch.load(checkpoint)['state_dict']}, bare := str(tmp_path / 'bare.pth'))
    (numbered,) = Predictor.from_config(CONFIG, bare, silent, device='cpu').rows(pictures[:1])
    assert numbered['class'] == f'class {row["label"]}'


def test_a_sample_that_the_model_refuses_leaves_its_batch(checkpoint, pictures, monkeypatch):
    predictor = Predictor.from_config(CONFIG, checkpoint, device='cpu')
    expected = [scores(row) for row in predictor.rows(pictures)]
    step, refused = predictor._model.test_step, predictor._samples[Item(pictures[2])].data['inputs']

    def refuse(data):
        if any(torch.equal(image, refused) for image in data['inputs']):
            raise UserError('this model dislikes an image.')
        return step(data)

    monkeypatch.setattr(predictor._model, 'test_step', refuse)
    rows = predictor.rows(pictures)
    assert [row.get('problem') for row in rows] == [None, None, f'{pictures[2]}: this model dislikes an image.', None]
    for place in (0, 1, 3):
        assert scores(rows[place]) == pytest.approx(expected[place], abs=2e-6)


def fail_on(predictor, monkeypatch, *failing):
    """Have the last step of the pipeline fail on these images."""
    step = predictor._samples.transforms[-1]

    def fails(data):
        if data['img_path'] in failing:
            raise ZeroDivisionError('no side may be 0')
        return step(data)

    monkeypatch.setattr(predictor._samples, 'transforms', [*predictor._samples.transforms[:-1], fails])


@pytest.mark.parametrize('failing', [[0], [3], [0, 1, 2]])
def test_an_image_that_a_step_fails_on_is_told_and_the_others_are_predicted(
    checkpoint, pictures, monkeypatch, failing, capsys
):
    predictor = Predictor.from_config(CONFIG, checkpoint, device='cpu')
    predictor.batch_size = 1
    fail_on(predictor, monkeypatch, *(pictures[place] for place in failing))
    rows = predictor.rows(pictures)
    assert [row['path'] for row in rows] == pictures
    told = ' cannot be predicted: function of the pipeline failed (ZeroDivisionError: no side may be 0).'
    assert [row.get('problem') for row in rows] == [
        f'{path}{told}' if place in failing else None for place, path in enumerate(pictures)
    ]
    # What has served already is not to blame for an image that comes alone.
    (row,) = predictor.rows([pictures[failing[0]]])
    assert row['problem'] == f'{pictures[failing[0]]}{told}'
    assert 'error while' not in capsys.readouterr().err


@pytest.mark.parametrize('workers', [0, 1])
def test_a_pipeline_that_fails_on_every_image_keeps_its_trace(checkpoint, pictures, monkeypatch, capsys, workers):
    predictor = Predictor.from_config(CONFIG, checkpoint, device='cpu')
    Path(pictures[1]).write_bytes(b'torn')
    fail_on(predictor, monkeypatch, *pictures)
    with pytest.raises(ZeroDivisionError, match='no side may be 0'):
        list(predictor.outcomes(map(Item, pictures), batch_size=2, workers=workers))
    assert f'error while running function on {pictures[0]}:' in capsys.readouterr().err
    # It is told long before the last of a million images.
    asked = []
    with pytest.raises(ZeroDivisionError):
        list(predictor.outcomes((asked.append(path) or Item(path) for path in pictures[:1] * 99), batch_size=2))
    assert len(asked) < 40


def exhaust(predictor, monkeypatch, most, *failing):
    """Have the model run out of memory on these images, and on more than ``most`` at a time."""
    step = predictor._model.test_step
    large = [predictor._samples[Item(path)].data['inputs'] for path in failing]

    def fails(data):
        images = data['inputs']
        if len(images) > most or any(torch.equal(image, one) for image in images for one in large):
            raise torch.OutOfMemoryError('out of memory:\n tried to allocate')
        return step(data)

    monkeypatch.setattr(predictor._model, 'test_step', fails)


@pytest.mark.parametrize(('most', 'failing'), [(9, [2]), (1, []), (1, [0, 3])])
def test_an_image_that_the_model_fails_on_is_told_and_the_others_are_predicted(
    checkpoint, pictures, monkeypatch, most, failing, capsys
):
    predictor = Predictor.from_config(CONFIG, checkpoint, device='cpu')
    predictor.batch_size = 4
    expected = [scores(row) for row in predictor.rows(pictures)]
    exhaust(predictor, monkeypatch, most, *(pictures[place] for place in failing))
    told = 'cannot be predicted: the model failed (OutOfMemoryError: out of memory: tried to allocate).'
    for place, row in enumerate(predictor.rows(pictures)):
        if place in failing:
            assert row['problem'] == f'{pictures[place]} {told}'
        else:
            assert scores(row) == pytest.approx(expected[place], abs=2e-6)
    assert not capsys.readouterr().err


def test_a_model_that_fails_on_every_image_keeps_its_trace(checkpoint, pictures, monkeypatch, capsys):
    predictor = Predictor.from_config(CONFIG, checkpoint, device='cpu')
    exhaust(predictor, monkeypatch, 0)
    with pytest.raises(torch.OutOfMemoryError):
        list(predictor.outcomes(map(Item, pictures), batch_size=2))
    assert f'error while predicting {pictures[0]}:' in capsys.readouterr().err


def test_a_dead_gpu_ends_the_run(checkpoint, pictures, monkeypatch):
    predictor = Predictor.from_config(CONFIG, checkpoint, device='cpu')
    predictor.rows(pictures[:1])
    monkeypatch.setattr('coc_core.mm.prediction.predictor.is_dead', lambda device: True)
    exhaust(predictor, monkeypatch, 0)
    with pytest.raises(torch.OutOfMemoryError):
        predictor.rows(pictures)


def test_a_worker_that_is_killed_is_told(checkpoint, pictures, monkeypatch):
    predictor = Predictor.from_config(CONFIG, checkpoint, device='cpu')

    def die(data):
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(predictor._samples, 'transforms', [die])
    with pytest.raises(UserError, match=f'DataLoader worker .* at {pictures[0]} or soon after: lower'):
        list(predictor.outcomes(map(Item, pictures), batch_size=1, workers=1))


def test_a_task_that_says_nothing_of_predictions():
    with pytest.raises(UserError, match='of the scope mmengine: set `predictions` of its Task'):
        _predictions_of(Task())


def test_classes_in_another_order_than_the_checkpoints_are_an_error(checkpoint):
    turned = {'test_dataloader.dataset.metainfo.classes': NAMES[::-1]}
    with pytest.raises(UserError, match='model.pth was trained with the classes number 0, .* from label 0 on'):
        Predictor.from_config(CONFIG, checkpoint, turned, device='cpu')
