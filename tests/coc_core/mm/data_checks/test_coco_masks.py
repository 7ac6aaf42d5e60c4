"""Segmentations: what mmdet and pycocotools draw, and what they crash on."""

import numpy as np
import pytest
from pycocotools import mask as rle

from coc_core.mm.data_checks.coco_masks import mask_finding

TRIANGLE = [2, 3, 12, 3, 12, 11.5]


def square(height=30, width=40):
    mask = np.zeros((height, width), np.uint8, order='F')
    mask[3:11, 2:12] = 1
    return mask


def compressed(mask):
    found = rle.encode(mask)
    return dict(size=found['size'], counts=found['counts'].decode())


STRING = compressed(square())['counts']


@pytest.mark.parametrize('training', [True, False])
@pytest.mark.parametrize(
    'mask',
    [
        [TRIANGLE],
        [TRIANGLE, [5, 5, 9, 5, 9, 9, 5, 9]],
        [[-5.5, -5, 400, 3, 12, 11]],
        dict(size=[30, 40], counts=[100, 50, 1050]),
        dict(size=[30, 40], counts=[0, 1200]),
        dict(size=[30.0, 40.0], counts=[100.0, 50.0, 1050.0]),
        dict(size=[30, 40], counts=STRING),
    ],
)
def test_every_form_that_mmdet_draws_is_right(mask, training):
    assert mask_finding(mask, 30, 40, training=training) is None
    drawn = rle.merge(rle.frPyObjects(mask, 30, 40)) if isinstance(mask, list) else mask
    drawn = rle.frPyObjects(mask, 30, 40) if isinstance(drawn['counts'], list) else drawn
    assert rle.decode(drawn).any()


@pytest.mark.parametrize('training', [True, False])
@pytest.mark.parametrize(
    ('mask', 'sentence'),
    [
        ([2, 3, 12, 3, 12, 11], 'has 2 among its polygons instead of a list'),
        ([TRIANGLE, None], 'has None among its polygons instead of a list'),
        ([[2, 3, 12, 3, 12, 11, 2]], 'has a polygon of 7 numbers, which do not pair'),
        ([[[2, 3], [12, 3], [12, 11]]], 'has a polygon of nested points'),
        ([[2, 3, 12, float('nan'), 12, 11]], 'has the coordinate nan in a polygon'),
        ([[2, 3, 12, float('-inf'), 12, 11]], 'has the coordinate -inf in a polygon'),
        ([[2, 3, 12, 4e8, 12, 11]], 'has the coordinate 400000000.0 in a polygon'),
        ([[2, 3, '12', 3, 12, 11]], "has the coordinate '12' in a polygon"),
        ([[2, 3, True, 3, 12, 11]], 'has the coordinate True in a polygon'),
        ('2 3 12 3', "has the segmentation '2 3 12 3', which is neither a list of polygons nor an RLE"),
        (dict(counts=STRING), r'has an RLE of the size None, but its image is [30, 40]'),
        (dict(size=[40, 30], counts=STRING), r'has an RLE of the size [40, 30], but its image is [30, 40]'),
        (dict(size=[30, 40], counts=None), 'has an RLE with the counts None, which is no list of run lengths'),
        (dict(size=[30, 40], counts=[1300, -100]), 'has an RLE with the counts [1300, -100]'),
        (dict(size=[30, 40], counts=[100.5, 1099.5]), 'has an RLE with the counts [100.5, 1099.5]'),
        (dict(size=[30, 40], counts=['1200']), "has an RLE with the counts ['1200']"),
        (dict(size=[30, 40], counts=[2**40]), 'has an RLE with the counts [1099511627776]'),
        (dict(size=[30, 40], counts=[100, 50]), 'has an RLE of 150 pixels, but its image has 1200'),
        (dict(size=[30, 40], counts=[]), 'has an RLE of 0 pixels, but its image has 1200'),
        (dict(size=[30, 40], counts='garbage!'), "has an RLE with the counts 'garbage!'"),
        (dict(size=[30, 40], counts='é' + STRING), "has an RLE with the counts 'é"),
        (dict(size=[30, 40], counts=''), "has an RLE with the counts ''"),
        (dict(size=[30, 40], counts=STRING[:-1]), 'has an RLE with the counts'),
        # Runs of 1300 and -100 pixels, which are 1200 together.
        (dict(size=[30, 40], counts='dX1lL'), "has an RLE with the counts 'dX1lL'"),
        (dict(size=[30, 40], counts=STRING + '1'), 'has an RLE of 1209 pixels, but its image has 1200'),
        (dict(size=[30, 40], counts='P' * 100 + '0'), 'has an RLE with the counts'),
    ],
)
def test_what_cannot_be_drawn_is_an_error(mask, sentence, training):
    what, level = mask_finding(mask, 30, 40, training=training)
    assert what.startswith(sentence) and level == 'error'


@pytest.mark.parametrize('mask', [[[4, 5]], [[]], [[2, 3, 12, 11]]])
def test_an_object_of_short_polygons_alone_is_dropped_in_training_and_stops_evaluation(mask):
    what, level = mask_finding(mask, 30, 40, training=True)
    assert level == 'error' and 'no polygon of three points or more, at which mmdet drops the object' in what
    what, level = mask_finding([*mask, TRIANGLE], 30, 40, training=False)
    assert level == 'error' and 'begins with a polygon of fewer than three points' in what
    with pytest.raises(Exception, match='not supported|incorrect type'):
        rle.frPyObjects([*mask, TRIANGLE], 30, 40)


def test_a_short_polygon_beside_others_is_no_error():
    what, level = mask_finding([TRIANGLE, [4, 5], [2, 3, 12, 11]], 30, 40, training=True)
    assert what.startswith('has 2 polygons of fewer than three points') and level == 'warning'
    assert mask_finding([TRIANGLE, [4, 5]], 30, 40, training=False) is None


@pytest.mark.parametrize(
    'mask',
    [
        [[100, 3, 120, 3, 120, 11]],
        [[2, -9, 12, -9, 12, -1], [2, 3, 2, 3, 2, 3]],
        dict(size=[30, 40], counts=[1200]),
        compressed(np.zeros_like(square())),
    ],
)
def test_a_mask_without_a_pixel_is_told(mask):
    assert mask_finding(mask, 30, 40, training=True) == ('has a segmentation without a pixel in its image', 'warning')


@pytest.mark.parametrize('height', [1, 7, 3000])
def test_strings_of_any_mask_are_decoded(height):
    """Long and short runs, and differences of either sign."""
    rng = np.random.default_rng(height)
    for density in (0.001, 0.5, 1):
        noise = np.asfortranarray(rng.random((height, 50)) < density).astype(np.uint8, order='F')
        noise[0, 0] = 1
        mask = compressed(noise)
        assert mask_finding(mask, height, 50, training=True) is None
        wrong = mask | dict(size=[height + 1, 50])
        what, _ = mask_finding(wrong, height + 1, 50, training=True)
        assert what == f'has an RLE of {height * 50} pixels, but its image has {(height + 1) * 50}'
