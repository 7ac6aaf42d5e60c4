"""Photographs as users have them, from a folder to predictions, by the commands that each tool prints for the next."""

import html
import io
import json
import re
import shlex
from base64 import b64decode
from pathlib import Path

import photographs
import pytest
from PIL import Image
from processes import run_tool

ROOT = Path(__file__).parents[2]
LAYOUTS = {
    'classification': photographs.class_folders,
    'detection': photographs.coco,
    'segmentation': photographs.label_maps,
}
# Each region takes a detector's head milliseconds, and each step seconds.
FEWER = {'detection': ['model.test_cfg.rpn.max_per_img=50', 'model.test_cfg.rcnn.max_per_img=5']}
FEWER_TRAINED = {'detection': ['train_dataloader.dataset.indices=2']}
# Enlarged, so that its text can be read.
SHORTEST_PICTURE = {'classification': 224}


def run(words, cwd):
    done = run_tool(ROOT / words[0], *words[1:], cwd=cwd, env={'CUDA_VISIBLE_DEVICES': ''})
    said = done.stdout + done.stderr
    assert done.returncode == 0, said[-5000:]
    assert 'Traceback' not in said
    return said


def images_below(folder):
    """The sizes of the images by their paths."""
    found = [path for path in folder.rglob('*') if path.name.startswith('Größe') and path.parent.name != 'masks']
    return {path: Image.open(path).size for path in found}


def shape(size):
    return size[0] / size[1]


@pytest.mark.parametrize('task', LAYOUTS)
def test_photographs_are_learned_tested_and_predicted(tmp_path, task):
    data = tmp_path / 'Daten' / 'schöne Fotos'
    LAYOUTS[task](data, photographs.cuts(3))
    config = ['--task', task, '--data', 'Daten/schöne Fotos', '--out', 'configs/meine prüfung.py', '--arch', 'coc_tiny']
    told = run(['tools/new_config.py', *config], tmp_path)
    printed = [shlex.split(line)[1:] for line in told.splitlines() if line.startswith('    python ')]
    train, test, predict = [[re.sub(r'epoch_\d+', 'epoch_1', word) for word in words] for words in printed]
    options = ['--cfg-options', 'train_cfg.max_epochs=1', *FEWER.get(task, [])]
    assert 'UserWarning' not in run([*train, *options, *FEWER_TRAINED.get(task, [])], tmp_path)

    run([*test, '--report', 'Bericht ü', *options], tmp_path)
    page = (tmp_path / 'Bericht ü' / 'report.html').read_text()
    sizes = images_below(data)
    cases = re.findall(r'<figure><img src="data:image/jpeg;base64,([^"]+)".*?<div>([^<]+)</div></figcaption>', page)
    assert cases and len(cases) == page.count('<figure>')
    for picture, name in cases:
        # A segmentation has image, truth and prediction side by side.
        expected = shape(sizes[tmp_path / html.unescape(name)]) * (3 if task == 'segmentation' else 1)
        assert shape(Image.open(io.BytesIO(b64decode(picture))).size) == pytest.approx(expected, rel=0.05)
    assert all(html.escape(name) in page for name in photographs.CLASSES)

    example, *rest = predict[1:]
    assert tmp_path / example in sizes
    # Label maps lie in a folder of their own, as a user would leave them out.
    source = Path(example).parent if task == 'segmentation' else data
    run([predict[0], source, *rest, '--out', 'Vorhersagen ö', *options], tmp_path)
    text = (tmp_path / 'Vorhersagen ö' / 'predictions.jsonl').read_text()
    rows = {Path(row['path']): row for row in map(json.loads, text.splitlines())}
    assert len(text.splitlines()) == len(rows) == 9 and rows.keys() == sizes.keys()
    assert 'schöne Fotos' in text
    for path, (width, height) in sizes.items():
        row = rows[path]
        assert (row['width'], row['height']) == (width, height)
        factor = max(1, SHORTEST_PICTURE.get(task, 0) / min(width, height))
        picture = Image.open(tmp_path / 'Vorhersagen ö' / row['picture'])
        assert picture.size == pytest.approx((width * factor, height * factor), abs=1)
        if task == 'segmentation':
            assert Image.open(tmp_path / 'Vorhersagen ö' / row['label_map']).size == (width, height)
