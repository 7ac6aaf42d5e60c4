"""The residual block in pieces is the block as its layers have it, gradients and running statistics included."""

import copy

import pytest
import torch
from torch.testing import assert_close

import pointcloud
from coc_core.ops import mlp
from pointcloud.norm import PointNorm
from pointcloud.residual import ResidualBlock


def pair(expansion=1.0):
    """Two equal blocks; a hook, which does nothing, has the layers of the second called one by one."""
    torch.manual_seed(0)
    block = ResidualBlock(8, expansion).double().train()
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter)
    plain = copy.deepcopy(block)
    plain.linear1.register_forward_hook(lambda *_: None)
    return block, plain


@pytest.mark.parametrize('expansion', [0.25, 1.0, 2.0])
@pytest.mark.parametrize('shape', [(2,), (13,), (3, 5, 7)])
def test_pieces_equal_the_layers(monkeypatch, expansion, shape):
    block, plain = pair(expansion)
    monkeypatch.setitem(mlp.PIECE_BYTES, 'cpu', 4 * block.linear1.out_features * 8)
    x = torch.randn(*shape, 8, dtype=torch.float64, requires_grad=True)
    weight, results = torch.randn_like(x), []
    for each in (block, plain):
        out = each(x)
        results.append([out, *torch.autograd.grad((out * weight).sum(), [x, *each.parameters()]), *each.buffers()])
    for found, expected in zip(*results, strict=True):
        assert_close(found, expected)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float32])
def test_autocast_gives_gradients_near_those_of_float64(dtype):
    block, exact = pair()
    block.float()
    x = torch.randn(64, 8, dtype=torch.float64)
    exact(x).square().sum().backward()
    with torch.autocast('cpu', dtype, enabled=dtype != torch.float32):
        block(x.float()).float().square().sum().backward()
    for found, expected in zip(block.parameters(), exact.parameters(), strict=True):
        assert found.grad.dtype == torch.float32
        error = (found.grad - expected.grad).norm() / expected.grad.norm()
        assert error < (1e-5 if dtype == torch.float32 else 5e-2)


@pytest.mark.parametrize('name', ['norm1', 'norm2'])
def test_a_norm_that_is_frozen_stays_as_it_is(name):
    block, _ = pair()
    norm = getattr(block, name).eval()
    before = norm.running_mean.clone()
    block(torch.randn(9, 8, dtype=torch.float64))
    assert torch.equal(norm.running_mean, before)


def test_a_bias_of_a_layer_in_the_place_of_one_counts():
    block, _ = pair()
    block.linear2 = torch.nn.Linear(8, 8).double()
    x = torch.randn(9, 8, dtype=torch.float64)
    hidden = torch.relu(block.norm1(block.linear1(x)))
    assert_close(block(x), torch.relu(block.norm2(block.linear2(hidden)) + x))
    block(x).sum().backward()
    assert block.linear2.bias.grad is not None


def test_norms_in_the_place_of_ours_see_each_batch_once():
    model = pointcloud.create_model('pointmlp_coc', embed_dim=8, anchors=(64, 32, 24, 16)).backbone.train()
    other = copy.deepcopy(model)
    for module in list(other.modules()):
        for name, child in module.named_children():
            if isinstance(child, PointNorm):
                norm = torch.nn.BatchNorm1d(child.num_features)
                norm.load_state_dict(child.state_dict())
                setattr(module, name, norm)
    points = torch.randn(2, 128, 3)
    for each in (model, other):
        each(points).sum().backward()
    for (name, found), expected in zip(other.named_buffers(), model.buffers(), strict=True):
        assert_close(found, expected, rtol=1e-3, atol=1e-4, msg=name)


def test_one_point_is_no_batch():
    block, _ = pair()
    with pytest.raises(ValueError, match='two points or more, not 1'):
        block(torch.randn(1, 8, dtype=torch.float64))


def test_a_training_step_keeps_few_maps():
    model, kept = pointcloud.create_model('pointmlp_coc', anchors=(192, 96, 48, 24)).train(), {}

    def pack(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model.backbone(torch.randn(2, 256, 3))
    of_groups = [t for t in kept.values() if t.numel() == 2 * 192 * 24 * 128]
    # In each stage the embedding's output, and of two clustering and residual blocks four each.
    assert len(of_groups) == 4 * (1 + 2 * 4)
