from mmengine.config import ConfigDict

from coc_core.mm.own_data.resizing import resized


def test_whole_sizes_grow_alike_wherever_they_are_and_ratios_stay():
    pipeline = [
        ConfigDict(type='RandomChoice', transforms=[[dict(type='Crop', crop_size=(100, 50), cat_max_ratio=0.9)]]),
        dict(type='RandomResize', scale=(400, 100), ratio_range=(0.5, 2), keep_ratio=True),
        dict(type='RandomScaleShift', scale=(0.8, 1.25)),
        dict(type='ResizeToMultiple', size_divisor=32),
    ]
    before = repr(pipeline)
    found = resized(pipeline, 100, 64)
    assert found[0]['transforms'][0][0] == dict(type='Crop', crop_size=(64, 32), cat_max_ratio=0.9)
    assert found[1] == dict(type='RandomResize', scale=(256, 64), ratio_range=(0.5, 2), keep_ratio=True)
    assert found[2:] == pipeline[2:] and repr(pipeline) == before
