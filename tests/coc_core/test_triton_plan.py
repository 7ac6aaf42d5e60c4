"""How the kernels divide a map among programs, without a GPU."""

import pytest

pytest.importorskip('triton')

from coc_core.ops.triton import plan


def test_forms_are_chosen_by_size():
    assert plan.fits_on_chip(49, 4, 24, 24, 4) and plan.fits_on_chip(64, 64, 32, 8, 4)
    assert plan.fits_on_chip(24, 1, 256, 256, 2) and not plan.fits_on_chip(24, 1, 256, 256, 4)
    assert not plan.fits_on_chip(1050, 4, 32, 32, 2) and not plan.fits_on_chip(64, 1, 256, 16, 2)
    assert not plan.fits_on_chip(196, 49, 24, 24, 2)


@pytest.mark.parametrize('groups', [1, 7, 1024, 40000])
@pytest.mark.parametrize('points', [1, 31, 1050, 3136, 67200])
def test_chunks_cover_each_point_once(points, groups):
    chunks = plan.split(points, groups, 64, processors=132)
    assert chunks.size % 64 == 0
    assert (chunks.number - 1) * chunks.size < points <= chunks.number * chunks.size
    assert chunks.number == 1 or chunks.number * groups <= 2 * plan.PROGRAMS_PER_PROCESSOR * 132
