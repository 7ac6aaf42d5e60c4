"""The report of segmenters on label maps whose mistakes are known."""

import re

import numpy as np
import torch
from mmengine.registry import init_default_scope
from PIL import Image

import mmseg_plugin  # noqa: F401
from mmseg_plugin.reports import PixelReport


def sample(path, truth, found):
    Image.fromarray(np.full((2, 4, 3), 100, np.uint8)).save(path)
    maps = {key: dict(data=torch.tensor([value])) for key, value in (('gt_sem_seg', truth), ('pred_sem_seg', found))}
    return dict(img_path=str(path), **maps)


def test_pixels_are_counted_and_the_worst_image_is_first(tmp_path):
    init_default_scope('mmseg')
    right = sample(tmp_path / 'right.png', [[0, 0, 1, 1]] * 2, [[0, 0, 1, 1]] * 2)
    # Of class 0 one pixel of two is taken for class 1; 255 counts for nothing, whatever is found there.
    bad = sample(tmp_path / 'bad.png', [[0, 0, 255, 255], [1, 1, 1, 1]], [[0, 1, 0, 1], [1, 1, 1, 1]])
    worse = sample(tmp_path / 'worse.png', [[0, 0, 0, 0]] * 2, [[1, 1, 1, 1]] * 2)
    metric = PixelReport(folder=str(tmp_path), title='a test')
    metric.dataset_meta = dict(classes=('sky', 'sea', 'sun'), palette=[[250, 0, 0], [0, 250, 0], [0, 0, 250]])
    metric.process({'inputs': [None] * 3}, [right, bad, worse])
    assert metric.evaluate(3) == {}
    html = (tmp_path / 'report.html').read_text()
    # sky: 5 right of 14 and none false; sea: 8 right, 9 false.
    assert '3 images: mIoU 41.4 %, right are 59.1 % of the pixels.' in html
    rows = [re.findall(r'<td[^>]*>(.*?)</td>', line) for line in re.findall(r'<tr>(.*?)</tr>', html)][1:]
    assert rows == [['sky', '63.6', '35.7', '35.7'], ['sea', '36.4', '47.1', '100.0'], ['sun', '0.0', '-', '-']]
    assert re.findall(r'rgb(\(.*?\))', html) == ['(250, 0, 0)', '(0, 250, 0)', '(0, 0, 250)']
    told = re.findall(r'<div>(mean.*?)</div>', html)
    assert told == ['mean IoU 0.0; worst class sky (0.0)', 'mean IoU 65.0; worst class sky (50.0)']
    assert 'right.png' not in html and html.count('data:image/jpeg') == 2
