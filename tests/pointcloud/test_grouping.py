"""Grouping equals the algorithms as they are told in one sentence."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pointcloud.grouping import farthest_point_sample, gather_points, nearest_neighbors

# Few different places, so that there are ties and repetitions.
CLOUDS = st.lists(st.tuples(*[st.integers(-2, 2)] * 3), min_size=3, max_size=12)


@settings(deadline=None)
@given(cloud=CLOUDS, count=st.integers(1, 15))
def test_each_picked_point_is_the_first_farthest_from_those_before(cloud, count):
    points = torch.tensor(cloud, dtype=torch.float32)
    picked = farthest_point_sample(points[None], count)[0].tolist()
    assert picked[0] == 0
    for i in range(1, count):
        nearest = [min((p - points[j]).square().sum().item() for j in picked[:i]) for p in points]
        assert picked[i] == nearest.index(max(nearest))


@settings(deadline=None)
@given(cloud=CLOUDS, count=st.integers(1, 3))
def test_no_point_left_out_of_a_group_is_nearer_than_one_within(cloud, count):
    points = torch.tensor(cloud, dtype=torch.float32)
    anchors = points[:2]
    members = nearest_neighbors(points[None], anchors[None], count)[0]
    for anchor, chosen in zip(anchors, members, strict=True):
        distances = (points - anchor).square().sum(-1)
        assert len(set(chosen.tolist())) == count
        assert sorted(distances[chosen].tolist()) == sorted(distances.tolist())[:count]


@pytest.mark.parametrize('offset', [100, 1000, 10_000])
def test_neighbors_do_not_depend_on_where_a_cloud_is(offset):
    # Multiples of 2^-10, which float32 holds at every one of these places.
    points = (torch.randn(2, 500, 3, generator=torch.Generator().manual_seed(0)) * 1024).round() / 1024
    here = nearest_neighbors(points, points[:, :100], 12)
    there = nearest_neighbors(points + offset, points[:, :100] + offset, 12)
    assert torch.equal(here.sort().values, there.sort().values)


def test_gather_takes_each_cloud_from_itself_and_sums_gradients():
    values = torch.randn(2, 5, 3, requires_grad=True)
    index = torch.tensor([[[0, 0], [4, 1]], [[2, 2], [2, 3]]])
    gathered = gather_points(values, index)
    gathered.sum().backward()
    assert torch.equal(gathered[1, 1, 1], values[1, 3])
    assert values.grad[..., 0].tolist() == [[2, 1, 0, 0, 1], [0, 0, 3, 1, 0]]


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
def test_the_gpu_picks_the_same_points():
    points = torch.randn(4, 500, 3)
    assert torch.equal(farthest_point_sample(points.cuda(), 200).cpu(), farthest_point_sample(points, 200))
