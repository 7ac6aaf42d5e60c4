"""Whatever one value of a COCO file is changed to: a sentence, or mmdet and pycocotools can use the file."""

from copy import deepcopy

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mmdet.datasets import CocoDataset
from mmdet.datasets.api_wrappers import COCO
from mmdet.evaluation import CocoMetric
from mmengine.registry import DefaultScope
from pycocotools import mask as rle

from coc_core.mm.data_checks.checks import inspections

NEAR = [
    0,
    1,
    -1,
    0.5,
    1.0,
    '1',
    '',
    10**30,
    [],
    {},
    [[]],
    [[4, 5]],
    [2, 3, 4, 5],
    [[2, 3, 9, 3, 9, 9]],
    [30, 40],
    2**40,
]
LOADS = [dict(with_mask=True), dict(with_mask=True, poly2mask=False), dict(with_mask=False)]
JUNK = st.sampled_from(NEAR) | st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=8) | st.dictionaries(st.sampled_from(['counts', 'size']), inner),
    max_leaves=8,
)


@pytest.fixture
def masks(content):
    """A good file with a mask of each form, and a crowd."""
    square = np.zeros((30, 40), np.uint8, order='F')
    square[3:11, 2:12] = 1
    encoded = rle.encode(square)['counts'].decode()
    first, second, third = content['annotations']
    second['segmentation'] = dict(size=[30, 40], counts=encoded)
    crowd = dict(size=[30, 40], counts=[100, 50, 1050])
    content['annotations'] += [
        dict(deepcopy(third), id=4, segmentation=crowd, iscrowd=1),
        dict(deepcopy(first), id=5, category_id=20, segmentation=[[2, 3, 12, 3, 12, 11], [2, 3, 12, 11, 2, 11.5]]),
    ]
    return content


def places(value):
    """Return the way to every value in a JSON value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in inner:
        yield (key,)
        yield from ((key, *rest) for rest in places(item))


def damage(content, data):
    """Drop or replace one value; most often of an annotation."""
    key = data.draw(st.sampled_from(['annotations'] * 4 + ['images', 'categories']))
    *way, last = data.draw(st.sampled_from([place for place in places(content[key]) if len(place) > 1]))
    parent = content[key]
    for step in way:
        parent = parent[step]
    if data.draw(st.booleans()):
        parent[last] = data.draw(JUNK)
    else:
        del parent[last]


def errors(cfg, phase):
    (found,) = inspections(cfg, [phase], files=True)
    problems = [*found.problems, *found.opened(sample() for sample in found.samples)]
    # Each can be printed.
    return [str(problem).encode() and problem for problem in problems if problem.level == 'error']


def load_all(cfg, phase):
    arguments = {key: value for key, value in cfg[f'{phase}_dataloader'].dataset.items() if key != 'type'}
    # Serializing collects garbage, which takes most of the time.
    dataset = CocoDataset(**arguments, serialize_data=False)
    return [dataset[i]['data_samples'] for i in range(len(dataset))]


def evaluate(ann_file, samples, *, masks):
    api = COCO(ann_file)
    for annotation in api.dataset['annotations'] if masks else []:
        assert api.annToMask(annotation).shape == (30, 40)
    metric = CocoMetric(ann_file, metric=['bbox', 'segm'] if masks else 'bbox')
    metric.dataset_meta = dict(classes=('cat', 'dog'))
    found = np.zeros((2, 30, 40), bool)
    found[:, 3:11, 2:12] = True
    predictions = dict(
        bboxes=torch.tensor([[2.0, 3.0, 12.0, 11.0]] * 2), scores=torch.tensor([0.9, 0.8]),
        labels=torch.tensor([0, 1]), masks=torch.from_numpy(found),
    )  # fmt: skip
    metric.process({}, [dict(img_id=s.img_id, ori_shape=s.ori_shape, pred_instances=predictions) for s in samples])
    return metric.evaluate(len(samples))


@settings(max_examples=120, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(data=st.data(), loads=st.sampled_from(LOADS))
def test_no_damage_passes_that_mmdet_cannot_use(coco, masks, tmp_path, data, loads):
    content = deepcopy(masks)
    damage(content, data)
    for phase in ('train', 'val'):
        cfg = coco(content, phase=phase, loads=loads)
        with DefaultScope.overwrite_default_scope('mmdet'):
            if not errors(cfg, phase):
                samples = load_all(cfg, phase)
                if phase == 'val':
                    evaluate(str(tmp_path / 'instances.json'), samples, masks=loads['with_mask'])
