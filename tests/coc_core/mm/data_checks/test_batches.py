"""How a data set falls into batches."""

import pytest
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.registry import DATASETS

from coc_core.errors import UserError
from coc_core.mm.data_checks.batches import check_batches, check_loading, smallest_batch


def loader(batch_size, drop_last):
    return dict(batch_size=batch_size, drop_last=drop_last)


@pytest.mark.parametrize(
    ('phase', 'samples', 'batch', 'processes', 'sentence'),
    [
        ('train', 20, loader(64, True), 1, r'has 20 samples, .*batch_size is 64.* to at most 20, or .*drop_last=Fal'),
        ('train', 20, loader(8, True), 4, r'has 20 samples \(5 on each of 4 processes\).* to at most 5'),
        ('val', 20, loader(64, True), 1, 'The val data makes no batch'),
        ('test', 20, loader(8, True), 1, r'test_dataloader.drop_last=True leaves 4 of 20 samples out of the evalua'),
    ],
)
def test_what_trains_or_measures_nothing_is_told(phase, samples, batch, processes, sentence):
    with pytest.raises(UserError, match=sentence):
        check_batches(phase, samples, batch, processes)


@pytest.mark.parametrize(
    ('phase', 'samples', 'batch', 'processes'),
    [
        ('train', 20, loader(64, False), 1),
        ('train', 64, loader(64, True), 1),
        ('train', 65, loader(64, True), 1),
        ('train', 17, loader(5, True), 4),
        ('train', 1, {}, 1),
        ('val', 20, loader(10, True), 1),
        ('val', 21, loader(10, False), 2),
    ],
)
def test_what_trains_and_measures_passes(phase, samples, batch, processes):
    check_batches(phase, samples, batch, processes)


@pytest.mark.parametrize(
    ('samples', 'batch', 'processes', 'smallest'),
    [
        (20, loader(8, False), 1, 4),
        (17, loader(8, False), 1, 1),
        (17, loader(8, True), 1, 8),
        (18, loader(8, False), 2, 1),
        (16, loader(8, False), 2, 8),
        (3, {}, 1, 1),
    ],
)
def test_the_smallest_batch(samples, batch, processes, smallest):
    assert smallest_batch(samples, batch, processes) == smallest


@pytest.fixture
def numbers(monkeypatch):
    class Numbers(BaseDataset):
        def __init__(self, count):
            self.count = count
            super().__init__()

        def load_data_list(self):
            if self.count < 0:
                raise IndexError('nowhere')
            return [dict() for _ in range(self.count)]

    monkeypatch.setitem(DATASETS._module_dict, 'Numbers', Numbers)


@pytest.mark.usefixtures('numbers')
def test_data_is_loaded_as_a_training_loads_it():
    def config(count, **more):
        return Config(dict(train_dataloader=dict(batch_size=8, dataset=dict(type='Numbers', count=count), **more)))

    check_loading(config(8, drop_last=True), 'train')
    check_loading(config(8), 'val')
    check_loading(config(3, drop_last=True, sampler=dict(type='InfiniteSampler')), 'train')
    with pytest.raises(UserError, match='The train data makes no batch'):
        check_loading(config(7, drop_last=True), 'train')
    with pytest.raises(UserError, match='The train data has no samples'):
        check_loading(config(0), 'train')
    with pytest.raises(UserError, match=r'The train data cannot be loaded \(IndexError: nowhere\)'):
        check_loading(config(-1), 'train')
