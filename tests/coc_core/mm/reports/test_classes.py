"""The report of classifiers on samples whose mistakes are known."""

import re

import numpy as np
import pytest
import torch
from mmengine.registry import init_default_scope
from PIL import Image

from coc_core.errors import UserError
from mmpretrain_plugin.reports import ImageClassReport
from pointcloud.reports import CloudReport

CLASSES = ('cat', 'dog', 'emu')
# Label and scores: two cats right, one taken for a dog; a dog right, one taken for an emu with certainty; no emu.
SAMPLES = [
    (0, (0.9, 0.1, 0.0)),
    (0, (0.4, 0.6, 0.0)),
    (0, (0.8, 0.1, 0.1)),
    (1, (0.0, 1.0, 0.0)),
    (1, (0.05, 0.0, 0.95)),
]


def rows(html):
    return [re.findall(r'<td>(.*?)</td>', line) for line in re.findall(r'<tr>(.*?)</tr>', html)][1:]


@pytest.fixture
def samples(tmp_path):
    init_default_scope('mmpretrain')
    found = []
    for i, (label, scores) in enumerate(SAMPLES):
        path = tmp_path / f'{i}.png'
        Image.fromarray(np.full((20, 20, 3), 40 * i, np.uint8)).save(path)
        found.append(dict(gt_label=torch.tensor([label]), pred_score=torch.tensor(scores), img_path=str(path)))
    return found


def report_of(kind, folder, samples, inputs, **options):
    metric = kind(folder=str(folder), title='a test', **options)
    metric.dataset_meta = dict(classes=CLASSES)
    for start in range(0, len(samples), 2):
        metric.process({'inputs': inputs[start : start + 2]}, samples[start : start + 2])
    assert metric.evaluate(len(samples)) == {}
    return (folder / 'report.html').read_text()


def test_mistakes_are_counted_and_shown(samples, tmp_path):
    html = report_of(ImageClassReport, tmp_path / 'new', samples, [None] * 5)
    assert '5 samples, 2 of them wrong: accuracy 60.0 %, mean of the classes 58.3 %.' in html
    assert rows(html) == [['dog', '2', '50.0', 'emu (1)'], ['cat', '3', '66.7', 'dog (1)'], ['emu', '0', '-', '']]
    told = [line for line in re.findall(r'<div>(.*?)</div>', html) if 'place' in line]
    assert told == ['emu (0.95) in the place of dog (0.00)', 'dog (0.60) in the place of cat (0.40)']
    assert f'{tmp_path}/4.png' in html and f'{tmp_path}/0.png' not in html
    assert html.count('data:image/jpeg') == 2 and html.count('data:image/png') == 1


def test_only_the_worst_are_shown_and_read(samples, tmp_path):
    (tmp_path / '0.png').unlink()
    html = report_of(ImageClassReport, tmp_path, samples, [None] * 5, worst=1)
    assert html.count('data:image/jpeg') == 1 and 'emu (0.95) in the place of dog' in html
    assert 'in the place of cat' not in html


def test_samples_without_files_and_classes_without_names(samples, tmp_path):
    for sample in samples:
        del sample['img_path']
        sample['pred_score'] = torch.cat([sample['pred_score'], torch.zeros(1)])
    html = report_of(ImageClassReport, tmp_path, samples, [None] * 5)
    assert 'class 2 (0.95) in the place of class 1' in html and 'data:image/jpeg' not in html


def test_clouds_are_drawn_from_what_the_model_got(samples, tmp_path):
    clouds = [dict(gt_label=sample['gt_label'], pred_scores=sample['pred_score']) for sample in samples]
    html = report_of(CloudReport, tmp_path, clouds, torch.randn(5, 50, 3), worst=1)
    assert 'emu (0.95) in the place of dog' in html and html.count('data:image/jpeg') == 1


def test_what_cannot_be_reported_is_one_sentence(samples, tmp_path):
    metric = ImageClassReport(folder=str(tmp_path), title='a test')
    with pytest.raises(UserError, match='one class of each sample'):
        metric.process({'inputs': [None]}, [{**samples[0], 'gt_label': torch.tensor([0, 1])}])
    del samples[0]['gt_label']
    with pytest.raises(UserError, match='compares predictions with annotations, and the test data has none'):
        metric.process({'inputs': [None]}, samples[:1])
