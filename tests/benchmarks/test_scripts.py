"""The two measurements that are scripts of their own."""

import json
import math
from argparse import Namespace
from pathlib import Path

import pytest
from processes import run_tool

from benchmarks import pointmlp_step

ROOT = Path(__file__).parents[2]


def test_data_loading_tells_how_many_workers_a_gpu_needs():
    script = ROOT / 'benchmarks' / 'data_loading.py'
    numbers = [
        '--images',
        2,
        '--size',
        64,
        48,
        '--rounds',
        1,
        '--shorter-side',
        24,
        '--gpu-images-per-second',
        1,
        100000,
    ]
    done = run_tool(script, *numbers, env={'CUDA_VISIBLE_DEVICES': ''})
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout[done.stdout.index('{') :])
    rates = found['images per second and core']
    assert list(rates) == [
        'as configured', 'decoded by pillow', 'resized by cv2', 'without RandAugment', 'from shards',
    ]  # fmt: skip
    assert found['shards'].startswith('a shorter side of at most 24: 2 images made smaller, ')
    steps = ['LoadImageFromFile', 'RandomResizedCrop', 'RandomFlip', 'RandAugment', 'RandomErasing', 'PackInputs']
    assert list(found['milliseconds of each transform']) == steps
    workers = found['workers for one GPU that trains at that many images per second']
    assert workers['1'] == 1
    assert workers['100000'] == pytest.approx(math.ceil(100000 / rates['as configured']['median']), rel=0.01)


def test_a_disk_gives_images_as_files_and_in_shards(tmp_path):
    script = ROOT / 'benchmarks' / 'shard_reading.py'
    done = run_tool(script, tmp_path, '--images', 50, '--shard-size', 9, '--rounds', 1)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout[done.stdout.index('{') :])
    assert found['images'] == 50 and all(found['images per second'][kind]['min'] > 0 for kind in ('files', 'shards'))
    assert not list(tmp_path.iterdir())
    nowhere = run_tool(script, tmp_path / 'nowhere')
    assert nowhere.returncode == 2 and nowhere.stderr.endswith(
        'is no folder: name one on the disk that is to be measured.\n'
    )


@pytest.mark.parametrize('kind', pointmlp_step.KINDS)
def test_the_first_step_of_a_point_cloud_model_is_not_timed(kind):
    seconds, memory = pointmlp_step.measure(kind, Namespace(arch='pointmlp_elite', batch_size=2, points=32, steps=1))
    assert len(seconds) == 1 and min(seconds) > 0 and memory > 2**20
