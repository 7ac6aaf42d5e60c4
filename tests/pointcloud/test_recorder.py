"""What is recorded of clouds is what the layers do, and recording changes nothing."""

import pytest
import torch
from torch.testing import assert_close

from pointcloud import create_model
from pointcloud.layers import ClusterBlock
from pointcloud.recorder import GroupSimilarities, GroupSimilarityRecorder

SMALL = dict(embed_dim=8, anchors=(24, 16, 12, 8), neighbors=6, dim_factors=(2, 2, 1, 1))


def test_similarities_are_those_of_the_groups_and_outputs_stay():
    torch.manual_seed(0)
    model = create_model('pointmlp_coc', **SMALL).eval()
    points = torch.randn(2, 40, 3)
    with torch.no_grad():
        plain = model(points)
        with GroupSimilarityRecorder(model, 1, 0) as recorder:
            assert torch.equal(model(points), plain)
    found = recorder.similarities(1)
    assert found.coordinates.shape == (24, 3)
    assert found.members.shape == found.similarity.shape == (16, 6)
    # The layer written out: one center, the mean of the features of a group.
    seen = {}
    stage = model.backbone.stages[1]
    block = stage.pre_blocks[0]
    block.register_forward_pre_hook(lambda _, inputs: seen.update(x=inputs[0]))
    with torch.no_grad():
        model(points)
        features = block.points(seen['x'])[1]
    expected = torch.cosine_similarity(features, features.mean(dim=1, keepdim=True), dim=-1)
    assert_close(found.similarity, expected)
    assert torch.equal(found.members, stage.group(found.coordinates[None])[1][0])


def test_a_point_has_the_mean_over_its_groups():
    found = GroupSimilarities(
        torch.zeros(4, 3), torch.tensor([[0, 1], [1, 2]]), torch.tensor([[0.2, 0.4], [0.8, -1.0]])
    )
    assert_close(found.of_points(), torch.tensor([0.2, 0.6, -1.0, torch.nan]), equal_nan=True)


def test_what_does_not_exist_is_told():
    model = create_model('pointmlp_coc', **SMALL)
    with pytest.raises(ValueError, match='stage 4 does not exist: the model has the stages 0 to 3'):
        GroupSimilarityRecorder(model, 4, 0)
    with pytest.raises(ValueError, match='block 2 does not exist: stage 0 has the blocks 0 to 1'):
        GroupSimilarityRecorder(model, 0, 2)
    with pytest.raises(ValueError, match='no clustering layers'):
        GroupSimilarityRecorder(create_model('pointmlp', **SMALL), 0, 0)
    with pytest.raises(ValueError, match='Nothing is recorded'):
        GroupSimilarityRecorder(model, 0, 0).similarities()


def test_a_block_with_its_own_forward_is_not_drawn_as_the_stock_one():
    class Half(ClusterBlock):
        def forward(self, x):
            return x / 2

    class Told(Half):
        similarities = ClusterBlock.similarities

    model = create_model('pointmlp_coc', **SMALL)
    blocks = model.backbone.stages[0].pre_blocks
    blocks[0] = Half(blocks[0].points.in_features)
    with pytest.raises(ValueError, match='^Half overrides forward, and the stock method `similarities` may not show'):
        GroupSimilarityRecorder(model, 0, 0)
    blocks[0] = Told(blocks[0].points.in_features)
    GroupSimilarityRecorder(model, 0, 0)
