"""Random numbers and the order of samples that follow from places alone."""

import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.dataset import DefaultSampler, InfiniteSampler
from torch.utils.data import BatchSampler, DataLoader

from coc_core.mm.fault_tolerance.seeding import (
    PlacedBatchSampler,
    SeededDataset,
    place_samples,
    seed_sample,
    seed_step,
)


def draw():
    return random.random(), float(np.random.rand()), float(torch.rand(1))


def test_every_place_has_its_own_numbers_and_the_same_ones_again(monkeypatch):
    drawn = {}
    for process in (0, 1):
        monkeypatch.setattr('coc_core.mm.fault_tolerance.seeding.get_dist_info', lambda process=process: (process, 2))
        for seed, iteration in ((0, 0), (0, 1), (1, 0), (2**31, 5)):
            seed_step(seed, iteration)
            drawn[process, seed, iteration] = draw()
            seed_step(seed, iteration)
            assert draw() == drawn[process, seed, iteration]
    for place in ((0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0)):
        seed_sample(*place)
        drawn[place, 'sample'] = draw()
    assert len({numbers[i] for numbers in drawn.values() for i in range(3)}) == 3 * len(drawn)


def batches(monkeypatch, kind, processes, batch_size, start, count, epoch=0, samples=20):
    """Return what each step takes over all processes: sets of (index, epoch, position)."""
    taken = []
    for process in range(processes):
        info = lambda process=process: (process, processes)  # noqa: E731
        monkeypatch.setattr('coc_core.mm.fault_tolerance.seeding.get_dist_info', info)
        monkeypatch.setattr('mmengine.dataset.sampler.get_dist_info', info)
        sampler = BatchSampler(kind(range(samples), shuffle=True, seed=3), batch_size, drop_last=False)
        placed = PlacedBatchSampler(sampler, endless=kind is InfiniteSampler)
        placed.begin(epoch, start)
        taken.append([batch for batch, _ in zip(placed, range(count), strict=False)])
    return [set().union(*(set(batch) for batch in step)) for step in zip(*taken, strict=True)]


@pytest.mark.parametrize('kind', [DefaultSampler, InfiniteSampler])
def test_steps_take_the_same_samples_on_any_number_of_processes(monkeypatch, kind):
    alone = batches(monkeypatch, kind, 1, 4, 0, 5, epoch=2 if kind is DefaultSampler else 0)
    assert [len(step) for step in alone] == [4] * 5
    assert sorted(index for step in alone for index, _, _ in step) == list(range(20))
    for processes in (2, 4):
        assert alone == batches(
            monkeypatch, kind, processes, 4 // processes, 0, 5, epoch=2 if kind is DefaultSampler else 0
        )
    for start in range(5):
        assert alone[start:] == batches(
            monkeypatch, kind, 2, 2, start, 5 - start, epoch=2 if kind is DefaultSampler else 0
        )


def test_an_endless_loop_over_a_sampler_that_ends_takes_its_next_order(monkeypatch):
    sampler = BatchSampler(DefaultSampler(range(6), shuffle=True, seed=0), 2, drop_last=False)
    placed = PlacedBatchSampler(sampler, endless=True)
    placed.begin(0, 0)
    whole = [batch for batch, _ in zip(placed, range(7), strict=False)]
    assert sorted(index for batch in whole[:3] for index, _, _ in batch) == list(range(6))
    assert [index for batch in whole[:3] for index, _, _ in batch] != [i for batch in whole[3:6] for i, _, _ in batch]
    placed.begin(0, 4)
    assert [batch for batch, _ in zip(placed, range(3), strict=False)] == whole[4:]


def test_nothing_comes_before_a_loop_says_where_to_begin():
    sampler = BatchSampler(DefaultSampler(range(6)), 2, drop_last=False)
    placed = PlacedBatchSampler(sampler, endless=True)
    assert list(placed) == [] and len(placed) == 3


class Noise:
    """A data set of random numbers of all three kinds."""

    pipeline = 'the first'

    def __len__(self):
        return 12

    def __getitem__(self, index):
        return torch.tensor([index, *draw()], dtype=torch.float64)


@pytest.mark.parametrize('workers', [0, 1, 3])
def test_what_a_sample_draws_does_not_depend_on_workers(workers):
    loader = DataLoader(Noise(), batch_size=3, num_workers=workers)
    placed = place_samples(loader, 7, endless=False)
    whole = []
    for epoch in range(2):
        placed.batch_sampler.begin(epoch, 0)
        torch.rand(5)
        whole += list(placed)
    placed.batch_sampler.begin(1, 2)
    assert torch.equal(torch.stack(list(placed)), torch.stack(whole[6:]))
    alone = SeededDataset(Noise(), 7)
    expected = torch.stack([alone[i, epoch, i] for epoch in range(2) for i in range(12)])
    assert torch.equal(torch.cat(whole), expected) and not torch.equal(expected[:12], expected[12:])


def test_hooks_that_change_a_data_set_reach_it():
    inner = Noise()
    placed = SeededDataset(inner, 0)
    placed.pipeline = 'another'
    assert inner.pipeline == placed.pipeline == 'another' and len(placed) == 12
    with pytest.raises(AttributeError):
        placed.metainfo  # noqa: B018
    assert not hasattr(SeededDataset(SimpleNamespace(), 0), 'full_init')
