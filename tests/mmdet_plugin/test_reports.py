"""The report of detectors on boxes whose mistakes are known."""

import base64
import io
import re

import numpy as np
import pytest
import torch
from mmengine.registry import init_default_scope
from PIL import Image

import mmdet_plugin  # noqa: F401
from coc_core.errors import UserError
from mmdet_plugin.reports import ObjectReport


def sample(path, truth, found, ignored=()):
    """Each object is a label, a box, and where it is found a score."""
    Image.fromarray(np.full((100, 100, 3), 100, np.uint8)).save(path)

    def instances(objects):
        labels = torch.tensor([label for label, *_ in objects], dtype=torch.int64)
        return dict(labels=labels, bboxes=torch.tensor([box for _, box, *_ in objects]).reshape(-1, 4).float())

    predicted = dict(instances(found), scores=torch.tensor([score for *_, score in found]))
    return dict(
        img_path=str(path),
        gt_instances=instances(truth), ignored_instances=instances(ignored), pred_instances=predicted,
    )  # fmt: skip


def test_objects_are_matched_and_the_worst_image_is_first(tmp_path):
    init_default_scope('mmdet')
    left, right, far = [0, 0, 40, 40], [50, 0, 90, 40], [50, 50, 90, 90]
    good = sample(tmp_path / 'good.png', [(0, left)], [(0, [0, 0, 40, 38], 0.9), (1, right, 0.1)])
    # One cat found, the other missed because the model is unsure; one false dog, one on what is to be ignored.
    bad = sample(
        tmp_path / 'bad.png', [(0, left), (0, right)], [(0, left, 0.8), (0, right, 0.2), (1, left, 0.7), (1, far, 0.6)],
        ignored=[(1, far)],
    )  # fmt: skip
    missed = sample(tmp_path / 'missed.png', [(1, far)], [])
    metric = ObjectReport(folder=str(tmp_path), title='a test')
    metric.dataset_meta = dict(classes=('cat', 'dog', 'emu'))
    metric.process({'inputs': [None] * 3}, [good, bad, missed])
    assert metric.evaluate(3) == {}
    html = (tmp_path / 'report.html').read_text()
    assert '3 images with 4 objects: mean AP of the boxes at IoU 0.5 50.0 %.' in html
    assert 'a score of at least 0.3, 1 are false, and 2 objects are missed.' in html
    rows = [re.findall(r'<td>(.*?)</td>', line) for line in re.findall(r'<tr>(.*?)</tr>', html)][1:]
    assert rows == [['dog', '1', '0.0', '0.0', '1'], ['cat', '3', '100.0', '66.7', '0'], ['emu', '0', '-', '-', '0']]
    assert re.findall(r'<div>(\d of.*?)</div>', html) == ['1 of 2 missed, 1 false', '1 of 1 missed, 0 false']
    assert 'good.png' not in html
    first = re.findall(r'data:image/jpeg;base64,([^"]+)', html)[0]
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(first)))).astype(int)
    factor = len(picture) / 100
    # The missed cat's left side is yellow, whose blue is the least.
    edge = picture[round(20 * factor), round(50 * factor) : round(50 * factor) + 3].mean(axis=0)
    assert min(edge[:2]) > 160 and edge[2] < 130


def test_data_without_annotations_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match='the test data has none'):
        ObjectReport(folder=str(tmp_path), title='a').process({'inputs': [None]}, [{'pred_instances': {}}])


def shown(folder, name, size):
    """The picture of an image with one missed object of a class of this name."""
    Image.fromarray(np.full((size, size, 3), 100, np.uint8)).save(folder / 'a.png')
    truth = dict(labels=torch.tensor([0]), bboxes=torch.tensor([[0.2, 0.2, 0.8, 0.8]]) * size)
    nothing = dict(labels=torch.zeros(0).long(), bboxes=torch.zeros(0, 4), scores=torch.zeros(0))
    metric = ObjectReport(folder=str(folder), title='a')
    metric.dataset_meta = dict(classes=(name,))
    metric.process({'inputs': [None]}, [dict(img_path=f'{folder}/a.png', gt_instances=truth, pred_instances=nothing)])
    metric.evaluate(1)
    (content,) = re.findall(r'data:image/jpeg;base64,([^"]+)', (folder / 'report.html').read_text())
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(content)))).astype(int)


def test_names_can_be_read_in_any_language_with_accents_and_on_any_size(tmp_path):
    init_default_scope('mmdet')
    first, second = (shown(tmp_path, name, 480) for name in ('ü', 'é'))
    assert np.abs(first - second).max() > 100
    assert np.abs(shown(tmp_path, 'ü', 4800) - first).mean() < 1
