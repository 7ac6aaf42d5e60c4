"""The order of shards: each image once, the same steps on any number of processes, and front to back."""

import itertools

import numpy as np
import pytest

from coc_core.errors import UserError
from mmpretrain_plugin.shards.sampler import ShardSampler

SIZES = [7, 5, 7, 7, 7, 7, 7, 7, 6]


class Shards:
    def __init__(self, sizes, length=None):
        self.shard_sizes = list(sizes)
        self.length = sum(sizes) if length is None else length

    def __len__(self):
        return self.length


def orders(monkeypatch, processes, epoch=0, seed=1, sizes=SIZES, **options):
    """What each process takes in an epoch."""
    found = []
    for rank in range(processes):
        monkeypatch.setattr('mmengine.dataset.sampler.get_dist_info', lambda rank=rank: (rank, processes))
        sampler = ShardSampler(Shards(sizes), seed=seed, **{'window': 6, **options})
        sampler.set_epoch(epoch)
        found.append(list(sampler))
        assert len(found[-1]) == len(sampler)
    return found


@pytest.mark.parametrize('processes', [1, 2, 3])
def test_each_image_comes_once_in_an_epoch_and_processes_share_none(monkeypatch, processes):
    taken = orders(monkeypatch, processes)
    assert sum(SIZES) == 60 and sorted(itertools.chain(*taken)) == list(range(60))


@pytest.mark.parametrize('window', [1, 6, 7, 192])
def test_steps_take_the_same_images_on_any_number_of_processes(monkeypatch, window):
    (alone,) = orders(monkeypatch, 1, window=window)
    for processes in (2, 3, 4):
        together = orders(monkeypatch, processes, window=window)
        assert [index for step in zip(*together, strict=True) for index in step] == alone


def test_the_last_turn_is_filled_with_the_first_images(monkeypatch):
    sizes = [8, 8, 8, 8, 8, 8, 8, 5]
    taken = list(itertools.chain(*orders(monkeypatch, 3, sizes=[*sizes, 3])))
    assert len(taken) == 66 and set(taken) == set(range(64))
    shorter = orders(monkeypatch, 3, sizes=[*sizes, 3], round_up=False)
    assert sorted(itertools.chain(*shorter)) == list(range(64))


def test_the_order_follows_from_seed_and_epoch_alone(monkeypatch):
    found = {(seed, epoch): orders(monkeypatch, 2, epoch, seed) for seed in (1, 2) for epoch in (0, 1)}
    assert all(found[place] == orders(monkeypatch, 2, epoch=place[1], seed=place[0]) for place in found)
    assert len({str(order) for order in found.values()}) == 4
    (plain,) = orders(monkeypatch, 1, shuffle=False)
    assert plain == list(range(60))


@pytest.mark.parametrize('processes', [1, 2, 3, 6])
def test_a_process_reads_few_shards_at_a_time_and_each_front_to_back(monkeypatch, processes):
    shard_of = np.repeat(np.arange(200), 10)
    for taken in orders(monkeypatch, processes, sizes=[10] * 200, window=12):
        at_a_time = 12 // processes
        shards = [shard_of[index] for index in taken]
        assert all(len(set(shards[i : i + at_a_time])) <= at_a_time for i in range(len(taken)))
        for shard in set(shards):
            own = [index for index in taken if shard_of[index] == shard]
            # Where the line of shards is cut the two parts of a shard are read apart, by one process or two.
            assert sum(b < a for a, b in itertools.pairwise(own)) <= 1
            times = [time for time, index in enumerate(taken) if shard_of[index] == shard]
            reads = [b - a for a, b in itertools.pairwise(times)]
            assert sum(gap != at_a_time for gap in reads) <= 1


def test_images_that_come_together_have_others_around_them_in_the_next_epoch(monkeypatch):
    """Of the 64 images of a batch, those from one shard are the same run again, but the shards are not the same."""
    shard_of = np.repeat(np.arange(100), 10)
    batches = [set(shard_of[orders(monkeypatch, 1, epoch, sizes=[10] * 100, window=20)[0][:64]]) for epoch in (0, 1)]
    assert all(len(batch) >= 20 for batch in batches) and len(batches[0] & batches[1]) <= 10


def test_what_has_no_shards_is_refused_in_a_sentence():
    for dataset, sentence in (
        (range(60), 'sampler.type=ShardSampler is for a whole ShardedImageNet, not for range with 60 samples'),
        (Shards(SIZES, length=20), 'not for Shards with 20 samples: use DefaultSampler.'),
    ):
        with pytest.raises(UserError, match=sentence):
            ShardSampler(dataset, seed=0)
    with pytest.raises(UserError, match=r'sampler.window=0 must be a positive number'):
        ShardSampler(Shards(SIZES), seed=0, window=0)
