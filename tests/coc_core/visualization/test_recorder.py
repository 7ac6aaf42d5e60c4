"""What is recorded is what the model does, and recording changes nothing of it."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.testing import assert_close

from coc_core import CoCConfig, ContextCluster, create_model, ops
from coc_core.layers import Clustering
from coc_core.visualization import ClusterRecorder, cluster_layers

TOY = CoCConfig(
    depths=(1, 2), dims=(8, 12), mlp_ratios=2, heads=(2, 4), head_dim=4, center_grid=(2, 3), region_grid=(4, 1)
)


class Dense(nn.Module):
    """As a detector holds its backbone."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = ContextCluster(TOY, dense_indices=(0, 1))

    def forward(self, images):
        return self.backbone.forward_dense(images)


def test_outputs_and_gradients_are_the_same_to_the_bit():
    model = ContextCluster(TOY, num_classes=3)
    images = torch.randn(2, 3, 40, 56)

    def run():
        model.zero_grad()
        inputs = images.clone().requires_grad_()
        logits = model(inputs)
        logits.square().sum().backward()
        return [logits.detach(), inputs.grad, *(p.grad.clone() for p in model.parameters())]

    plain = run()
    with ClusterRecorder(model, similarities=True) as recorder:
        recorded = run()
    assert len(recorder.clusters()) == 3
    assert all(torch.equal(a, b) for a, b in zip(plain, recorded, strict=True))
    assert all(not module._forward_hooks for module in model.modules())


@pytest.mark.parametrize('size', [(64, 64), (61, 37), (32, 100), (5, 9)])
def test_assignments_are_the_operators_without_the_padding(size):
    """Against `ops.assign` on an image that was padded by hand, where the layer sees the padded map."""
    model = Dense().eval()
    image = torch.randn(1, 3, *size)
    divisor = model.backbone.size_divisibility
    padded = torch.zeros(1, 3, *(-(-n // divisor) * divisor for n in size))
    padded[..., : size[0], : size[1]] = image
    seen = {}
    mixer = model.backbone.stages[1].blocks[1].mixer
    mixer.register_forward_pre_hook(lambda _, inputs: seen.update(x=inputs[0]))
    with torch.no_grad(), ClusterRecorder(model, stages=[-1], blocks=[-1]) as recorder:
        model(image)
    (layer,) = recorder.clusters(0, size)
    expected = ops.assign(mixer.project(seen['x'])[0], mixer.sim_alpha, mixer.sim_beta, center_grid=3, region_grid=1)
    rows, cols = (math.ceil(n / 8) for n in size)
    assert (layer.stage, layer.block, layer.assignment.shape) == (1, 1, (rows, cols, 4))
    assert np.array_equal(layer.assignment, expected[0, :rows, :cols].numpy())
    # A data preprocessor may have padded before the model does: the same image size crops both paddings.
    with torch.no_grad(), recorder:
        model(padded)
    assert np.array_equal(recorder.clusters(0, size)[0].assignment, layer.assignment)


def test_each_image_of_a_batch_has_its_own_clusters():
    model = ContextCluster(TOY, num_classes=0).eval()
    images = torch.randn(3, 3, 32, 32)
    with torch.no_grad(), ClusterRecorder(model) as batched:
        model(images)
    with torch.no_grad(), ClusterRecorder(model) as alone:
        model(images[2:])
    for a, b in zip(batched.clusters(2), alone.clusters(), strict=True):
        assert np.array_equal(a.assignment, b.assignment)


def test_clusters_are_numbered_over_the_map_by_region_and_center():
    model = ContextCluster(TOY, num_classes=0).eval()
    with torch.no_grad(), ClusterRecorder(model, stages=[0]) as recorder:
        model(torch.randn(1, 3, 32, 64))
    (layer,) = recorder.clusters()
    # Four regions along each side of a map of 8x16 points, each of 2x4.
    assert layer.regions()[0].tolist() == [0] * 4 + [1] * 4 + [2] * 4 + [3] * 4
    assert layer.regions()[:, 0].tolist() == [0, 0, 4, 4, 8, 8, 12, 12]
    assert np.array_equal(layer.clusters(1) // 4, layer.regions())
    assert np.array_equal(layer.clusters(1) % 4, layer.assignment[..., 1])


@pytest.mark.parametrize('sign', [1.0, -1.0])
def test_similarities_are_those_that_decide(sign):
    points = torch.randn(2, 9, 6, 3, 5, dtype=torch.float64)
    grids = dict(center_grid=2, region_grid=3)
    alpha = torch.tensor([sign], dtype=torch.float64)
    found = Clustering(alpha, 0 * alpha, **grids).find_clusters(points).similarity
    assert torch.equal((sign * found).argmax(dim=-1), ops.assign(points, alpha, 0 * alpha, **grids))
    # A region of 3x2 points: windows of the pooled centers written out.
    region = points[1, 3:6, 2:4, 2]
    center = region[1:3, 1:2].mean(dim=(0, 1))
    expected = torch.cosine_similarity(region, center.expand_as(region), dim=-1)
    assert_close(found[1, 3:6, 2:4, 2, 3], expected)


def test_a_clusters_similarity_is_of_its_region_alone():
    model = ContextCluster(TOY, num_classes=0).eval()
    with torch.no_grad(), ClusterRecorder(model, stages=[0], similarities=True) as recorder:
        model(torch.randn(1, 3, 32, 32))
    (layer,) = recorder.clusters()
    cluster = int(layer.clusters(0)[5, 3])
    found = layer.similarity_to(cluster, 0)
    assert np.array_equal(np.isfinite(found), layer.regions() == layer.regions()[5, 3])
    assert found[5, 3] == layer.own_similarity()[5, 3, 0] == np.nanmax(layer.similarity[5, 3, 0])


def test_layers_are_chosen_by_stage_and_block():
    model = create_model('coc_tiny', num_classes=0)
    assert list(cluster_layers(model)) == [(s, b) for s, depth in enumerate((3, 4, 5, 2)) for b in range(depth)]
    assert list(cluster_layers(model, stages=[2, 0, -1], blocks=[-1, 0])) == [
        (0, 0), (0, 2), (2, 0), (2, 4), (3, 0), (3, 1),
    ]  # fmt: skip
    for choice, sentence in (
        (dict(stages=[4]), 'stage 4 does not exist: the model has the stages 0 to 3.'),
        (dict(stages=[3], blocks=[2]), 'block 2 does not exist: stage 3 has the blocks 0 to 1.'),
    ):
        with pytest.raises(ValueError) as error:
            cluster_layers(model, **choice)
        assert str(error.value) == sentence
    with pytest.raises(ValueError, match='Linear has no Context Cluster in it'):
        ClusterRecorder(nn.Linear(2, 2))


def test_what_was_not_recorded_is_said():
    recorder = ClusterRecorder(ContextCluster(TOY, num_classes=0))
    with pytest.raises(ValueError, match='Nothing is recorded: run the model within'):
        recorder.clusters()
    with torch.no_grad(), recorder:
        recorder_model = ContextCluster(TOY, num_classes=0)
        assert recorder_model(torch.randn(1, 3, 32, 32)).shape == (1, 12)
    with pytest.raises(ValueError, match='Nothing is recorded'):
        recorder.clusters()
