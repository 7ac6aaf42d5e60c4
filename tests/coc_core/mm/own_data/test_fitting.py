import pytest

from coc_core import VARIANTS
from coc_core.mm.own_data.fitting import Budget, Machine, this_machine, training_bytes

GIB = 2**30
BUDGET = Budget(samples=1000, epochs=(10, 50), from_scratch=3, batch=(64, 16), size=(224, 128), smallest_batch=2)


@pytest.mark.parametrize(('samples', 'epochs'), [(10, 50), (40, 25), (10_000, 10)])
def test_few_samples_are_seen_more_often_and_random_weights_take_longer(samples, epochs):
    assert BUDGET.fitting_epochs(samples, pretrained=True) == epochs
    assert BUDGET.fitting_epochs(samples, pretrained=False) == 3 * epochs


@pytest.mark.parametrize(
    ('sides', 'gpu', 'size'),
    [([70, 90, 100], True, 96), ([500] * 3, True, 224), ([500] * 3, False, 128), ([20], True, 64), ([], True, 224)],
)
def test_the_image_size_is_that_of_the_images_as_far_as_the_machine_goes(sides, gpu, size):
    assert BUDGET.fitting_size(sides, Machine(gpu, 8 * GIB, 2)) == size


@pytest.mark.parametrize(
    ('samples', 'sample_bytes', 'gpu', 'batch'),
    [
        (10_000, 1e6, True, 64),
        (10_000, 1e6, False, 16),
        (100, 1e6, True, 8),
        (10_000, GIB, True, 4),
        (3, 1e6, True, 2),
        (10_000, 100 * GIB, True, 2),
    ],
)
def test_a_batch_fits_the_memory_and_leaves_an_epoch_a_few_steps(samples, sample_bytes, gpu, batch):
    assert BUDGET.fitting_batch(samples, sample_bytes, Machine(gpu, 8 * GIB, 2)) == batch


def test_this_machine_has_memory_and_cores():
    machine = this_machine()
    assert machine.memory > 0 and 1 <= machine.workers <= max(1, machine.cores - 1) and 'GiB' in machine.name


def test_larger_models_and_images_take_more_memory():
    small, medium = VARIANTS['coc_small'], VARIANTS['coc_medium']
    assert training_bytes(medium, 224) > training_bytes(small, 224) == training_bytes(small, 448) / 4
