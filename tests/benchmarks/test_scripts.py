"""The measurements that are scripts of their own."""

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
        'as configured', 'decoded by pillow', 'resized by torchvision', 'resized by cv2', 'without erasing',
        'without RandAugment', 'without both, as coc-tiny_8xb128_in1k-device.py', 'from shards',
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


def test_a_batch_is_augmented_by_fewer_operators_than_its_images():
    script = ROOT / 'benchmarks' / 'device_augmentation.py'
    done = run_tool(script, '--batch-size', 16, '--rounds', 2)
    assert done.returncode == 0, done.stderr[-2000:]
    ways = json.loads(done.stdout[done.stdout.index('{') :])['ways']
    calls = {name: way['operator calls for a batch'] for name, way in ways.items()}
    assert 0 < calls['erasing'] < calls['RandAugment'] < calls['RandAugment, image by image']
    assert all(way['ms for an image of 224x224'] > 0 for way in ways.values())


def test_resizers_are_compared_with_each_other_and_with_an_earlier_run(tmp_path):
    script = ROOT / 'benchmarks' / 'resizing.py'
    first, second = (run_tool(script, tmp_path / 'made', '--images', 2) for _ in range(2))
    assert first.returncode == second.returncode == 0, first.stderr[-2000:] + second.stderr[-2000:]
    found = json.loads(second.stdout[second.stdout.index('{') :])
    for difference in found['torchvision to Pillow'].values():
        assert difference['max'] <= 8 and difference['mean'] < 0.1
    names = [
        *('Pillow bilinear', 'Pillow bicubic', 'torchvision bilinear', 'torchvision bicubic'),
        *('the pipeline', 'the pipeline with another crop', 'decoded by Pillow'),
    ]
    assert found['to the first run'] == {name: dict(max=0, mean=0, share=0) for name in names}


@pytest.mark.parametrize('kind', pointmlp_step.KINDS)
def test_the_first_step_of_a_point_cloud_model_is_not_timed(kind):
    seconds, memory = pointmlp_step.measure(kind, Namespace(arch='pointmlp_elite', batch_size=2, points=32, steps=1))
    assert len(seconds) == 1 and min(seconds) > 0 and memory > 2**20
