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
    numbers = ['--images', 2, '--size', 64, 48, '--rounds', 1, '--gpu-images-per-second', 1, 100000]
    done = run_tool(script, *numbers, env={'CUDA_VISIBLE_DEVICES': ''})
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout[done.stdout.index('{') :])
    rates = found['images per second and core']
    assert list(rates) == ['as configured', 'decoded by pillow', 'resized by cv2', 'without RandAugment']
    steps = ['LoadImageFromFile', 'RandomResizedCrop', 'RandomFlip', 'RandAugment', 'RandomErasing', 'PackInputs']
    assert list(found['milliseconds of each transform']) == steps
    workers = found['workers for one GPU that trains at that many images per second']
    assert workers['1'] == 1
    assert workers['100000'] == pytest.approx(math.ceil(100000 / rates['as configured']['median']), rel=0.01)


@pytest.mark.parametrize('kind', pointmlp_step.KINDS)
def test_the_first_step_of_a_point_cloud_model_is_not_timed(kind):
    seconds, memory = pointmlp_step.measure(kind, Namespace(arch='pointmlp_elite', batch_size=2, points=32, steps=1))
    assert len(seconds) == 1 and min(seconds) > 0 and memory > 2**20
