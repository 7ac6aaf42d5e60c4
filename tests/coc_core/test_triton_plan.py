"""How the kernels divide a map among programs, without a GPU."""

import pytest

pytest.importorskip('triton')

from coc_core.ops.triton import plan


def test_forms_are_chosen_by_size():
    assert plan.is_whole(49, 4) and plan.is_whole(512, 16) and plan.is_whole(128, 64)
    assert not plan.is_whole(513, 1) and not plan.is_whole(196, 49)


@pytest.mark.parametrize('groups', [1, 7, 1024, 40000])
@pytest.mark.parametrize('points', [1, 31, 1050, 3136, 67200])
def test_chunks_cover_each_point_once(points, groups):
    chunks = plan.split(points, groups, 64, processors=132)
    assert chunks.size % 64 == 0
    assert (chunks.number - 1) * chunks.size < points <= chunks.number * chunks.size
    assert chunks.number == 1 or chunks.number * groups <= 2 * plan.PROGRAMS_PER_PROCESSOR * 132
