"""Numbers on constructed clusters, where they can be counted by hand."""

import json

import numpy as np
import pytest

from coc_core.visualization import LayerClusters
from coc_core.visualization.statistics import ClusterStatistics, plot


def layer(assignment, own=1.0, **changes):
    """A map of 4x4 points, 4 pixels each, in 2x2 regions of 2x2 points and 2x2 centers."""
    assignment = np.asarray(assignment)[..., None]
    similarity = np.zeros((*assignment.shape, 4), np.float32)
    np.put_along_axis(similarity, assignment[..., None], own, axis=-1)
    fields = dict(
        stage=0, block=0, stride=4, image_size=(16, 16), map_size=(4, 4), region_grid=2, center_grid=2, alpha=2.0,
        beta=0.5, assignment=assignment, similarity=similarity,
    )  # fmt: skip
    return LayerClusters(**{**fields, **changes})


FOUR = [[0, 0, 0, 0], [0, 0, 0, 0], [0, 1, 3, 3], [2, 3, 3, 2]]


def test_used_centers_sizes_and_similarity():
    statistics = ClusterStatistics()
    statistics.add([layer(FOUR, own=0.5)])
    summary = json.loads(json.dumps(statistics.summary()))
    assert summary['images'] == 1
    (found,) = summary['layers']
    (head,) = found.pop('heads')
    told = {'alpha': 2.0, 'beta': 0.5, 'similarity_scale': 'cosine'}
    assert found == {'stage': 0, 'block': 0, 'regions': 4, 'centers': 4, **told}
    # Regions use 1, 1, 4 and 2 centers; clusters have 4, 4, 1, 1, 1, 1, 3 and 1 points.
    assert head['centers_used'] == 2.0
    assert head['cluster_size'] == {
        'mean': 2.0,
        'std': pytest.approx(np.std([4, 4, 1, 1, 1, 1, 3, 1])),
        'min': 1,
        'max': 4,
    }
    assert head['similarity'] == 0.5
    assert 'adjusted_rand_index' not in head


def test_images_are_averaged():
    statistics = ClusterStatistics()
    statistics.add([layer(FOUR, own=0.5)])
    statistics.add([layer(np.zeros((4, 4), int), own=1.0)])
    (head,) = statistics.summary()['layers'][0]['heads']
    assert head['centers_used'] == 1.5
    assert head['similarity'] == 0.75


def test_agreement_with_labels():
    """Clusters that are the labels' parts agree within regions, and less over the map, which regions cut."""
    labels = np.zeros((64, 64), np.uint8)
    labels[:, :24] = 1
    statistics = ClusterStatistics()
    assignment = np.zeros((4, 4), int)
    # Of the points' columns, 16 pixels wide, the labels are 1, 0 (its middle), 0, 0.
    assignment[:, 0] = 3
    statistics.add([layer(assignment)], labels)
    (head,) = statistics.summary()['layers'][0]['heads']
    assert head['adjusted_rand_index_in_regions'] == 1.0
    assert 0 < head['adjusted_rand_index'] < 0.6


def test_ignored_labels_count_for_nothing():
    labels = np.full((4, 4), 255)
    statistics = ClusterStatistics(ignore_label=255)
    statistics.add([layer(FOUR)], labels)
    assert 'adjusted_rand_index' not in statistics.summary()['layers'][0]['heads'][0]
    labels[2:, :2] = [[5, 6], [7, 8]]
    statistics.add([layer(FOUR)], labels)
    assert statistics.summary()['layers'][0]['heads'][0]['adjusted_rand_index_in_regions'] == 1.0


def test_without_recorded_similarities_it_is_said():
    with pytest.raises(ValueError, match='stage 0, block 0 were not recorded: record with similarities=True'):
        ClusterStatistics().add([layer(FOUR, similarity=None)])


@pytest.mark.parametrize(('labels', 'axes'), [(None, 5), (np.eye(4, dtype=int), 7)])
def test_the_plot_has_a_curve_for_each_number(labels, axes, tmp_path):
    statistics = ClusterStatistics()
    statistics.add([layer(FOUR), layer(FOUR, block=1)], labels)
    figure = plot(statistics.summary())
    assert len(figure.axes) == axes
    assert [tick.get_text() for tick in figure.axes[0].get_xticklabels()] == ['0.0', '0.1']
    figure.savefig(tmp_path / 'plot.png')
