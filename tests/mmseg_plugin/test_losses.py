"""Cross entropy with class weights: its value, its gradient, and pixels that count for nothing."""

import mmseg
import pytest
import torch
from mmseg.models.losses import CrossEntropyLoss
from mmseg.registry import MODELS
from torch.nn import functional as F
from torch.testing import assert_close

import mmseg_plugin  # noqa: F401

WEIGHTS = [0.2, 1.0, 3.0]


def build(**options):
    return MODELS.build(dict(type='WeightedCrossEntropyLoss', class_weight=WEIGHTS, **options))


def batch(ignored_rows):
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 3, (2, 8, 9), generator=generator)
    labels[:, :ignored_rows] = 255
    return torch.randn(2, 3, 8, 9, generator=generator).requires_grad_(), labels


@pytest.mark.family
@pytest.mark.parametrize('ignored_rows', [0, 2])
def test_equals_torch_and_ignored_pixels_have_no_gradient(ignored_rows):
    scores, labels = batch(ignored_rows)
    loss = build(loss_weight=2.0)(scores, labels, ignore_index=255)
    assert_close(loss, 2 * F.cross_entropy(scores, labels, torch.tensor(WEIGHTS), ignore_index=255))
    loss.backward()
    assert scores.grad[:, :, :ignored_rows].eq(0).all() and scores.grad[:, :, ignored_rows:].ne(0).all()


@pytest.mark.family
def test_equals_the_stock_loss_bit_for_bit_where_that_one_works():
    stock = CrossEntropyLoss(class_weight=WEIGHTS)
    scores, labels = batch(0)
    assert torch.equal(build()(scores, labels, ignore_index=255), stock(scores, labels, ignore_index=255))
    scores, labels = batch(2)
    if mmseg.__version__ == '1.2.2':
        with pytest.raises(IndexError, match='index 255 is out of bounds'):
            stock(scores, labels, ignore_index=255)
    else:
        assert torch.equal(build()(scores, labels, ignore_index=255), stock(scores, labels, ignore_index=255))


def test_weights_of_pixels_scale_the_loss():
    scores, labels = batch(2)
    assert_close(build()(scores, labels, torch.full(labels.shape, 0.5), 255), build()(scores, labels, None, 255) / 2)


def test_is_nothing_where_no_pixel_counts():
    scores, labels = batch(8)
    assert build()(scores, labels, ignore_index=255) == 0


def test_float16_scores_of_many_pixels_do_not_overflow():
    scores, labels = torch.zeros(1, 3, 300, 300, dtype=torch.float16), torch.ones(1, 300, 300, dtype=torch.int64)
    assert_close(build()(scores, labels), torch.tensor(3.0).log())
