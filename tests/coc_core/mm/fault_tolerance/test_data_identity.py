"""Which samples a data set holds."""

import numpy as np
import pytest

from coc_core.mm.fault_tolerance.data_identity import identity_of


class Listed:
    """A data set of what it is given."""

    def __init__(self, *samples):
        self.samples = samples

    def __len__(self):
        return len(self.samples)

    def get_data_info(self, place):
        return self.samples[place]


def images(root, *names, label=0, **more):
    return [dict(img_path=f'{root}/{name}', gt_label=label, **more) for name in names]


FIRST = identity_of(Listed(*images('/data', 'cat/0.png', 'cat/1.png', 'dog/0.png')))


@pytest.mark.parametrize('root', ['/elsewhere/still', '.', 's3://bucket/data', 'cat'])
def test_data_that_was_moved_is_the_same(root):
    assert identity_of(Listed(*images(root, 'cat/0.png', 'cat/1.png', 'dog/0.png'))) == FIRST


def test_another_order_is_told_from_other_samples():
    turned = identity_of(Listed(*images('/data', 'cat/1.png', 'cat/0.png', 'dog/0.png')))
    assert turned[0] == FIRST[0] and turned[1] != FIRST[1]


@pytest.mark.parametrize(
    'samples',
    [
        images('/data', 'cat/0.png', 'cat/2.png', 'dog/0.png'),
        images('/data', 'cat/0.png', 'cat/1.png', 'cow/0.png'),
        images('/data', 'cat/0.png', 'cat/1.png', 'dog/0.png', label=1),
        images('/data', 'cat/0.png', 'cat/1.png'),
        images(
            '/data', 'cat/0.png', 'cat/1.png', 'dog/0.png', instances=[dict(bbox_label=1, bbox=[0.0, 1.0, 2.0, 3.0])]
        ),
        images('/data', 'cat/0.png', 'cat/1.png', 'dog/0.png', seg_map_path='/data/0.png'),
        images('/data', 'cat/0.png', 'cat/1.png', 'dog/0.png', img=np.zeros(3)),
    ],
)
def test_other_samples_are_others(samples):
    assert identity_of(Listed(*samples))[0] != FIRST[0]


def test_what_lies_in_memory_counts():
    one, other = (identity_of(Listed(dict(points=np.full((2, 3), value), gt_label=np.int64(1)))) for value in (0, 1))
    assert one != other
    assert identity_of(Listed(dict(points=np.zeros((2, 3), int), gt_label=1))) == one


def test_what_does_not_say_its_samples_has_none():
    assert identity_of([1, 2]) is None
    assert identity_of(Listed([1], [2])) is None
