from collections import Counter

import pytest

from coc_core.errors import UserError
from coc_core.mm.own_data.splits import rarest, split


def test_each_class_has_its_share_and_the_same_one_every_time():
    labels = ['a'] * 50 + ['b'] * 10
    train, val = split(labels, 'images')
    assert sorted(train + val) == list(range(60)) and (train, val) == split(labels, 'images')
    assert Counter(labels[place] for place in val) == {'a': 10, 'b': 2}
    assert split(labels, 'images', seed=1) != (train, val)


def test_classes_of_files_that_are_named_alike_lose_different_ones():
    _, val = split([label for label in range(5) for _ in range(20)], 'images')
    held_back = {tuple(place % 20 for place in val if place // 20 == label) for label in range(5)}
    assert len(held_back) == 5


@pytest.mark.parametrize('counts', [[2, 2, 2], [1, 7, 2], [3, 1], [2, 100]])
def test_classes_of_few_samples_are_learned_and_where_they_can_be_measured(counts):
    labels = [label for label, count in enumerate(counts) for _ in range(count)]
    train, val = split(labels, 'images')
    assert {labels[place] for place in train} == set(range(len(counts)))
    assert {labels[place] for place in val} == {label for label, count in enumerate(counts) if count > 1}


def test_single_samples_cannot_be_split():
    with pytest.raises(UserError, match='The images in x: 2 in 2 classes cannot be split'):
        split(['a', 'b'], 'The images in x')


def test_a_sample_of_several_classes_counts_as_the_rarest():
    assert rarest([{1, 2}, {1}, {1, 3}, {3}, set()]) == [2, 1, 3, 3, None]
