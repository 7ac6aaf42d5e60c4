"""Operations are those of the layers, whatever operator computes them."""

import pytest
import torch

from benchmarks.counting import count_flops, plain_copy
from benchmarks.equality import relative_difference
from coc_core import create_model
from coc_core.reference import classify_reference


def test_flops_are_those_of_the_layers():
    model = create_model('coc_tiny')
    images = torch.empty(1, 3, 224, 224, device='meta')
    by_hand, config = 5 * 16 * 32 * 56**2 + 320 * 1000, model.config
    for i in range(4):
        points = (56 >> i) ** 2
        dim, width, centers = config.dims[i], config.heads[i] * config.head_dim[i], config.center_grid[i] ** 2
        # Projections of points and values, and back; similarities and both sums; the two layers of the MLP.
        block = 3 * dim * width + 3 * width * centers + 2 * dim * int(dim * config.mlp_ratios[i])
        by_hand += points * (config.depths[i] * block + (9 * config.dims[i - 1] * dim if i else 0))
    evaluation = count_flops(plain_copy(model), [images], 'eval')
    assert evaluation == pytest.approx(2 * by_hand, rel=0.02)
    assert evaluation == pytest.approx(2.2e9, rel=0.02)
    assert count_flops(plain_copy(model), [images], 'train') == 3 * evaluation


def test_flops_of_a_convolution_in_groups():
    depthwise = torch.nn.Conv2d(8, 8, 3, padding=1, groups=8, device='meta')
    images = torch.empty(1, 8, 10, 10, device='meta')
    assert count_flops(depthwise, [images], 'train') == 3 * 2 * 9 * 8 * 100


def test_plain_copy_computes_the_same():
    model = create_model('coc_tiny').eval()
    images = torch.randn(1, 3, 32, 64)
    # The copy has no numbers: give it the model's.
    plain = plain_copy(model).to_empty(device='cpu')
    for mine, theirs in zip(plain.parameters(), model.parameters(), strict=True):
        mine.data = theirs.data
    with torch.no_grad():
        assert relative_difference(plain(images), classify_reference(model, images)) < 1e-5
