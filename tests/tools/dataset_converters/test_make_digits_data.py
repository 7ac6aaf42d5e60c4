"""The embedded data set: every layout, deterministic, and never half there."""

import hashlib
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image
from processes import run_tool
from pycocotools.coco import COCO

TOOL = Path(__file__).parents[3] / 'tools' / 'dataset_converters' / 'make_digits_data.py'
SMALL = ('--scenes', '4', '3')


def make(out, *options, check=True):
    done = run_tool(TOOL, '--out', out, *SMALL, *options)
    assert done.returncode == 0 or not check, done.stderr
    return done


def digest(folder):
    files = sorted(p for p in folder.rglob('*') if p.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    out = tmp_path_factory.mktemp('digits')
    make(out)
    return out


def test_same_arguments_give_the_same_bytes(data, tmp_path):
    make(tmp_path)
    assert digest(tmp_path) == digest(data)
    make(tmp_path, '--layout', 'coco', '--seed', '1', '--force')
    assert digest(tmp_path / 'coco') != digest(data / 'coco')


def test_no_scan_is_in_both_splits(data):
    train, val = ({p.read_bytes() for p in (data / 'imagenet' / s).glob('*/*.png')} for s in ('train', 'val'))
    assert not train & val
    counts = [len(list((data / 'imagenet' / s).glob('*/*.png'))) for s in ('train', 'val')]
    assert counts == [1437, 360]
    assert {len(list(c.iterdir())) for c in (data / 'imagenet' / 'val').iterdir()} <= {35, 36, 37}


def test_coco_masks_and_ade20k_maps_show_the_same_scenes(data):
    coco = COCO(data / 'coco' / 'annotations' / 'instances_val2017.json')
    assert [c['name'] for c in coco.loadCats(coco.getCatIds())] == list('0123456789')
    for place, image_id in enumerate(coco.getImgIds()):
        labels = np.array(Image.open(data / 'ade20k' / 'annotations' / 'validation' / f'{place:08d}.png'))
        assert labels.min() == 1 and labels.max() <= 11
        covered = np.zeros_like(labels, dtype=bool)
        annotations = coco.loadAnns(coco.getAnnIds(image_id))
        assert annotations
        for annotation in annotations:
            mask = coco.annToMask(annotation).astype(bool)
            assert (labels[mask] == annotation['category_id'] + 1).all() and not covered[mask].any()
            assert mask.sum() == annotation['area']
            covered |= mask
        assert (labels[~covered] == 1).all()
        picture = np.array(Image.open(data / 'coco' / 'val2017' / coco.loadImgs(image_id)[0]['file_name']))
        assert picture.shape == (256, 256, 3)


def test_point_clouds_have_the_layout_of_scanobjectnn(data):
    for part, count in (('training', 1437), ('test', 360)):
        path = data / 'scanobjectnn' / 'main_split' / f'{part}_objectdataset_augmentedrot_scale75.h5'
        with h5py.File(path) as file:
            assert file['data'].shape == (count, 2048, 3) and file['data'].dtype == np.float32
            assert file['label'].shape == (count,) and set(file['label'][:]) == set(range(10))
            radius = np.linalg.norm(file['data'][:], axis=-1).max(axis=1)
        np.testing.assert_allclose(radius, 1, atol=1e-5)


def test_a_complete_layout_is_kept_and_another_one_is_not_overwritten(data):
    before = (data / 'coco' / 'dataset.json').stat().st_mtime_ns
    assert 'complete' in make(data, '--layout', 'coco').stdout
    refused = make(data, '--layout', 'coco', '--seed', '3', check=False)
    assert refused.returncode != 0 and '--force' in refused.stderr and 'Traceback' not in refused.stderr
    assert (data / 'coco' / 'dataset.json').stat().st_mtime_ns == before


def test_an_interrupted_run_leaves_nothing_that_looks_complete(tmp_path):
    process = subprocess.Popen(
        [sys.executable, TOOL, '--out', tmp_path, '--layout', 'imagenet'], stdout=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 60
    while not any(tmp_path.rglob('*.png')) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / 'imagenet').exists() and any(tmp_path.iterdir())
    make(tmp_path, '--layout', 'imagenet')
    assert [p.name for p in tmp_path.iterdir()] == ['imagenet']
    assert json.loads((tmp_path / 'imagenet' / 'dataset.json').read_text())['seed'] == 0


def test_bad_arguments_are_one_sentence(tmp_path):
    blocked = tmp_path / 'file'
    blocked.write_text('')
    for options in (('--layout', 'voc'), ('--scenes', '0', '3'), ('--out', blocked / 'x')):
        done = make(tmp_path / 'out', *options, check=False)
        assert done.returncode != 0 and 'Traceback' not in done.stderr and done.stderr
