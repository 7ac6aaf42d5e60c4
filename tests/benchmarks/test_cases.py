"""What can be measured, and that the suite measures what the docs compare."""

import pytest

from benchmarks.cases import ModelCase, OperatorCase, split_name, suite
from coc_core.errors import UserError


@pytest.mark.parametrize('device', ['cpu', 'cuda'])
def test_suite_has_what_readme_compares(device):
    cases = suite(device)
    measured = {(model, c.size, c.dense) for c in cases if isinstance(c, ModelCase) for model in c.models}
    assert {('coc_tiny', (224, 224), False), ('coc_small-49', (800, 1344), True)} <= measured
    # Laptops and shared nodes have other work beside a training.
    assert any(isinstance(c, ModelCase) and c.busy for c in cases) == (device == 'cpu')
    # The operator where a region fits on a multiprocessor, and where points and values have to be read twice.
    assert {case.fits_on_chip(2) for case in cases if isinstance(case, OperatorCase)} == {False, True}


def test_what_fits_on_a_chip():
    # Points and values of one region and head: 2 x 49 x 24 numbers; 2 x 3,136 x 24 where the map is one region.
    assert OperatorCase((1, 56, 56, 4, 24), 2, 8).fits_on_chip(4)
    whole = OperatorCase((1, 56, 56, 4, 24), 4, 1)
    assert not whole.fits_on_chip(2) and whole.fits_on_chip(1)


def test_names_of_models():
    assert split_name('coc_small-49') == ('coc_small', 7) and split_name('coc_tiny') == ('coc_tiny', None)
    for name in ('coc_small-5', 'coc_small-0', 'coc_small-', 'coc_small--4'):
        with pytest.raises(UserError, match=f'{name}: what follows the dash is the number of centers, a square'):
            split_name(name)
