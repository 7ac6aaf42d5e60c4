"""Boxes, areas and crowds of a COCO file, and classes that nothing can be learned of."""

import pytest
from mmdet.datasets import CocoDataset
from mmengine.registry import DefaultScope

from coc_core.errors import UserError
from coc_core.mm.data_checks.checks import check_data, inspections


def learned(cfg):
    """The numbers of objects that mmdet hands to a model, and of those that it ignores, image by image."""
    arguments = {key: value for key, value in cfg.train_dataloader.dataset.items() if key != 'type'}
    with DefaultScope.overwrite_default_scope('mmdet'):
        dataset = CocoDataset(**arguments, serialize_data=False)
        samples = [dataset[i]['data_samples'] for i in range(len(dataset))]
    return [(len(sample.gt_instances), len(sample.ignored_instances)) for sample in samples]


@pytest.mark.parametrize('phase', ['train', 'val'])
@pytest.mark.parametrize(
    ('changes', 'sentence'),
    [
        (
            dict(image_id='1'),
            "belongs to the image '1', which the file does not list (it lists 1: a number is no string)",
        ),
        (dict(image_id=[1]), 'belongs to the image [1], which the file does not list'),
        (dict(category_id='10'), "has the category '10', which the file does not list (it lists 10: a number is no"),
        (dict(category_id=None), 'has the category None, which the file does not list'),
        (dict(bbox=None), 'has the box None instead of [x, y, width, height] in pixels'),
        (dict(bbox=[2, 3, float('nan'), 8]), 'has the box [2, 3, nan, 8] instead of'),
        (dict(bbox=[2, 3, float('inf'), 8]), 'has the box [2, 3, inf, 8] instead of'),
        (dict(bbox=['2', '3', '10', '8']), "has the box ['2', '3', '10', '8'] instead of"),
        (dict(bbox=[True, 3, 10, 8]), 'has the box [True, 3, 10, 8] instead of'),
        (dict(bbox=[2, 3, 1e30, 8]), 'has the box [2, 3, 1e+30, 8] instead of'),
        (dict(bbox=[2, 3, 10, 8, 1]), 'has the box [2, 3, 10, 8, 1] instead of'),
        (
            dict(bbox=[12, 3, -10, 8]),
            'has a box [12, 3, -10, 8] of negative size: write [x, y, width, height] with x, y',
        ),
        (dict(area='80'), "has the area '80', which is no number of pixels"),
        (dict(area=None), 'has the area None, which is no number of pixels'),
        (dict(area=-80), 'has the area -80, which is no number of pixels'),
        (dict(area=float('nan')), 'has the area nan, which is no number of pixels'),
        (dict(iscrowd='0'), "has the iscrowd '0': write 1 for a crowd, else 0"),
        (dict(iscrowd=2), 'has the iscrowd 2: write 1 for a crowd, else 0'),
        (dict(segmentation=[[[2, 3], [9, 3], [9, 9]]]), 'has a polygon of nested points: write [[x1, y1, x2, y2, ...]'),
        (dict(segmentation={}), 'has no segmentation, but the pipeline loads masks'),
    ],
)
def test_a_wrong_value_is_one_error_with_the_annotation(coco, content, changes, sentence, phase, told):
    content['annotations'][0].update(changes)
    ((level, what),) = told(coco(content, phase=phase), phase)
    assert level == 'error' and what.startswith(f': annotation 1 {sentence}')


@pytest.mark.parametrize(
    ('changes', 'reason', 'counts'),
    [
        (dict(bbox=[2, 3, 0, 8]), 'has a box [2, 3, 0, 8] of less than a pixel or outside its image', (1, 0)),
        (dict(bbox=[2, 3, 10, 0.5]), 'has a box [2, 3, 10, 0.5] of less than a pixel or outside its image', (1, 0)),
        (dict(bbox=[-10, 3, 10, 8]), 'has a box [-10, 3, 10, 8] of less than a pixel or outside its image', (1, 0)),
        (dict(bbox=[40, 3, 10, 8], segmentation=None), 'has a box [40, 3, 10, 8] of less than a pixel', (1, 0)),
        (dict(area=0), 'has the area 0', (1, 0)),
        (dict(ignore=1), 'is marked as ignore', (1, 0)),
    ],
)
def test_what_mmdet_leaves_out_of_training_is_told_as_that(coco, content, changes, reason, counts, told):
    content['annotations'].append(dict(content['annotations'][0], id=4, image_id=2))
    assert learned(coco(content)) == [(2, 0), (2, 0)]
    content['annotations'][0].update(changes)
    ((level, what),) = told(coco(content))
    assert level == 'left out' and what.startswith(f': annotation 1 {reason}')
    assert learned(coco(content)) == [counts, (2, 0)]


def test_an_rle_is_left_out_where_masks_are_kept_as_polygons(coco, content, told):
    content['annotations'][0]['segmentation'] = dict(size=[30, 40], counts=[100, 50, 1050])
    cfg = coco(content, loads=dict(with_mask=True, poly2mask=False))
    assert told(cfg) == [('left out', ': annotation 1 has an RLE, which mmdet ignores with poly2mask=False.')]
    assert learned(cfg) == [(1, 1), (1, 0)]
    assert told(coco(content)) == [] and learned(coco(content)) == [(2, 0), (1, 0)]


@pytest.mark.parametrize('box', [[2, 3, 0, 8], [40, 3, 10, 8]])
def test_evaluation_counts_what_nothing_can_match(coco, content, box, told):
    content['annotations'][0]['bbox'] = box
    ((level, what),) = told(coco(content, phase='val'), 'val')
    assert (level, what) == (
        'warning', f': annotation 1 has a box {box} without a pixel in its image: it counts as never found.'
    )  # fmt: skip


def test_segmentations_count_where_they_are_used(coco, content, told):
    boxes = dict(with_mask=False)
    content['annotations'][0]['segmentation'] = [[2, 3, 12, 3, 12]]
    assert told(coco(content, loads=boxes)) == []
    ((level, what),) = told(coco(content, loads=boxes, phase='val'), 'val')
    assert level == 'warning' and 'a polygon of 5 numbers' in what
    for nothing in (None, [], [[]]):
        content['annotations'][0]['segmentation'] = nothing
        assert told(coco(content, loads=boxes, phase='val'), 'val') == []


def test_iscrowd_may_be_absent_in_training_alone(coco, content, told):
    del content['annotations'][0]['iscrowd']
    assert told(coco(content)) == [] and learned(coco(content)) == [(2, 0), (1, 0)]
    sentence = ': annotation 1 has no iscrowd: write 1 for a crowd, else 0.'
    assert told(coco(content, phase='val'), 'val') == [('error', sentence)]


def test_crowds_alone_are_nothing_to_learn_or_compare(coco, content, told):
    for annotation in content['annotations']:
        annotation.update(iscrowd=1, segmentation=dict(size=[30, 40], counts=[100, 50, 1050]))
    why = 'of its 3 annotations 3 are crowds (iscrowd=1).'
    assert told(coco(content)) == [('error', f' has nothing to learn from: {why}')]
    assert told(coco(content, phase='val'), 'val') == [('error', f' has nothing to compare with: {why}')]
    assert learned(coco(content)) == [(0, 2), (0, 1)]


def test_crowds_among_others_are_counted(coco, content, told):
    content['annotations'][0]['iscrowd'] = 1
    cfg = coco(content)
    assert told(cfg) == []
    (found,) = inspections(cfg, ['train'], files=False)
    assert found.summary == '2 images, 3 annotations (1 of crowds), 2 categories, 0 images without annotation'


def test_a_class_of_crowds_alone_cannot_be_learned_and_is_not_measured(coco, content, told):
    content['annotations'][1]['iscrowd'] = 1
    what = ' has no sample of 1 of the classes (dog): what has none'
    assert told(coco(content)) == [('error', f'{what} cannot be learned.')]
    assert told(coco(content, phase='val'), 'val') == [('warning', f'{what} is not measured.')]


def test_a_class_of_boxes_that_are_left_out_cannot_be_learned(coco, content, told):
    content['annotations'][1]['bbox'] = [2, 3, 0, 8]
    (level, what), (missing, which) = told(coco(content))
    assert level == 'left out' and what.startswith(': annotation 2 has a box [2, 3, 0, 8] of less than a pixel')
    assert missing == 'error' and which.startswith(' has no sample of 1 of the classes (dog)')


def test_objects_of_other_categories_teach_nothing_and_are_read_for_their_boxes_alone(coco, content, told):
    content['annotations'][0].update(segmentation=[[4, 5]], iscrowd=7)
    content['annotations'][2].update(segmentation=None)
    ((level, what),) = told(coco(content, classes=('dog',)))
    assert level == 'left out' and what.startswith(' has 2 annotations of 1 categories that metainfo does not list')
    content['annotations'][1].update(iscrowd=1)
    _, (level, what) = told(coco(content, classes=('dog',)))
    assert level == 'error' and '2 are of other categories, 1 are crowds' in what
    content['annotations'][0]['bbox'] = None
    assert any('annotation 1 has the box None' in what for _, what in told(coco(content, classes=('dog',))))


def test_images_that_mmdet_filters_do_not_teach_their_classes(coco, content, told):
    cfg = coco(content, filter_cfg=dict(filter_empty_gt=True, min_size=30))
    assert told(cfg) == [] and len(learned(cfg)) == 2
    content['images'][0]['height'] = 29
    left_out = ' has 1 images smaller than min_size=30 of filter_cfg.'
    ((_, first), (level, second)) = told(cfg := coco(content, filter_cfg=dict(filter_empty_gt=True, min_size=30)))
    assert first == left_out and len(learned(cfg)) == 1
    assert (level, second) == ('error', ' has no sample of 1 of the classes (dog): what has none cannot be learned.')
    content['images'][1]['width'] = 20
    with pytest.raises(UserError, match='nothing to learn from: of its 3 annotations 3 are in images smaller'):
        check_data(coco(content, filter_cfg=dict(min_size=30)), ['train'])
    assert told(coco(content, phase='val', filter_cfg=dict(min_size=30)), 'val') == []


def test_a_mistake_is_not_told_again_as_a_missing_class(coco, content, told):
    content['annotations'][1]['bbox'] = None
    assert len(told(coco(content))) == 1


def test_boxes_beyond_their_image_are_told_once(coco, content, told):
    for annotation, box in zip(content['annotations'], ([31, 3, 10, 8], [31.5, 3, 10, 8], [2, 25, 10, 8]), strict=True):
        annotation['bbox'] = box
    what = (
        ' has 2 boxes that reach out of their images, first that of annotation 2, [31.5, 3, 10, 8] in 40x30 pixels, '
        'and mmdet does not cut them.'
    )
    assert told(coco(content)) == [('warning', what)]
    assert learned(coco(content)) == [(2, 0), (1, 0)]


def test_corners_instead_of_width_and_height_are_recognized(coco, content, told):
    boxes = [(x, y, 10, 8) for x in (2, 14, 29) for y in (1, 8, 15, 21)]
    right = [[x, y, width, height] for x, y, width, height in boxes]
    corners = [[x, y, x + width, y + height] for x, y, width, height in boxes]
    one = content['annotations'][1]

    def with_boxes(boxes):
        more = [dict(one, id=4 + i, bbox=box) for i, box in enumerate(boxes)]
        return told(coco({**content, 'annotations': content['annotations'] + more}))

    content['annotations'] = content['annotations'][2:]
    content['annotations'][0]['bbox'] = [2, 3, 20, 15]
    assert with_boxes(right) == []
    ((level, what),) = with_boxes(corners)
    assert level == 'warning' and what.startswith(' has 8 boxes that reach out of their images')
    assert what.endswith('read as corners [x1, y1, x2, y2] all boxes fit, but COCO means [x, y, width, height].')
    # One that cannot be corners, or too few to tell.
    for others in ([*corners, [20, 3, 10, 8]], corners[-8:]):
        ((level, what),) = with_boxes(others)
        assert level == 'warning' and what.endswith('mmdet does not cut them.')
