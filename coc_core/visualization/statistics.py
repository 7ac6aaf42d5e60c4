"""Numbers on the clusters of a layer: how many centers are used, how large clusters are, how alike their points."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.metrics import adjusted_rand_score

from coc_core.visualization.painting import palette
from coc_core.visualization.recorder import Layer, LayerClusters

LABELED = ('adjusted_rand_index', 'adjusted_rand_index_in_regions')


class ClusterStatistics:
    """Gathers numbers over any number of images.

    Args:
        ignore_label: Pixels of a label map with this value count for nothing.
    """

    def __init__(self, ignore_label: int = 255) -> None:
        self.images = 0
        self._ignored = ignore_label
        self._layers: dict[Layer, LayerClusters] = {}
        self._found: dict[Layer, list[list[dict[str, Any]]]] = {}

    def add(self, layers: Sequence[LayerClusters], labels: NDArray[Any] | None = None) -> None:
        """Take in the layers of one image, recorded with similarities.

        Args:
            layers: What ``ClusterRecorder.clusters`` gives.
            labels: A label map of the image at any scale, integers [H, W].

        Raises:
            UserError: The similarities were not recorded.
        """
        self.images += 1
        for layer in layers:
            key = (layer.stage, layer.block)
            self._layers[key] = layer
            self._found.setdefault(key, []).append(_heads(layer, labels, self._ignored))

    def summary(self) -> dict[str, Any]:
        """Return everything as plain numbers, ready for JSON.

        For each layer: ``stage``, ``block``, ``alpha`` and ``beta`` (None where the mixer has none), ``regions``,
        ``centers`` (in a region) and ``similarity_scale`` (what similarities are), and for each of its ``heads``, over
        all images: ``centers_used`` (mean number of centers in a region that have a point), ``cluster_size`` (``mean``,
        ``std``, ``min`` and ``max`` over clusters that have a point, in points) and ``similarity`` (mean of the points'
        similarity to their center). With label maps also the agreement of clusters and labels:
        ``adjusted_rand_index`` over the map, and ``adjusted_rand_index_in_regions`` within each region that has two
        labels or more, because no cluster reaches beyond its region; mean over these points.
        """
        layers = []
        for key, layer in sorted(self._layers.items()):
            per_head = [_merged(list(images)) for images in zip(*self._found[key], strict=True)]
            layers.append(
                {
                    'stage': layer.stage,
                    'block': layer.block,
                    'alpha': layer.alpha,
                    'beta': layer.beta,
                    'similarity_scale': layer.scale,
                    'regions': layer.region_grid**2,
                    'centers': layer.centers,
                    'heads': per_head,
                }
            )
        return {'images': self.images, 'layers': layers}


def _heads(layer: LayerClusters, labels: NDArray[Any] | None, ignored: int) -> list[dict[str, Any]]:
    """Return what one image says of each head; sizes and pairs of (value, weight) that `_merged` sums up."""
    similarity = layer.own_similarity()
    regions = layer.regions()
    points = None if labels is None else _labels_of_points(labels, layer)
    found = []
    for head in range(layer.heads):
        clusters = layer.clusters(head)
        used, sizes = np.unique(clusters, return_counts=True)
        values: dict[str, Any] = {
            'sizes': sizes,
            'centers_used': (len(used) / len(np.unique(regions)), 1),
            'similarity': (float(similarity[..., head].mean()), clusters.size),
        }
        if points is not None:
            values |= _agreement(clusters, regions, points, ignored)
        found.append(values)
    return found


def _labels_of_points(labels: NDArray[Any], layer: LayerClusters) -> NDArray[Any]:
    """Return the label in the middle of each point of a map: [h, w]."""
    rows, cols = (
        np.minimum(((np.arange(n) + 0.5) * layer.stride * side / seen).astype(np.int64), side - 1)
        for n, side, seen in zip(layer.assignment.shape[:2], labels.shape, layer.image_size, strict=True)
    )
    found: NDArray[Any] = labels[rows[:, None], cols]
    return found


def _agreement(clusters: NDArray[Any], regions: NDArray[Any], labels: NDArray[Any], ignored: int) -> dict[str, Any]:
    known = labels != ignored
    found: dict[str, Any] = {}
    if known.any():
        found['adjusted_rand_index'] = (adjusted_rand_score(labels[known], clusters[known]), 1)
    scores, weights = [], []
    for region in np.unique(regions):
        inside = known & (regions == region)
        if len(np.unique(labels[inside])) > 1:
            scores.append(adjusted_rand_score(labels[inside], clusters[inside]))
            weights.append(int(inside.sum()))
    if scores:
        found['adjusted_rand_index_in_regions'] = (float(np.average(scores, weights=weights)), sum(weights))
    return found


def _merged(images: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    sizes = np.concatenate([image['sizes'] for image in images])
    merged: dict[str, Any] = {
        'cluster_size': {
            'mean': float(sizes.mean()),
            'std': float(sizes.std()),
            'min': int(sizes.min()),
            'max': int(sizes.max()),
        }
    }
    for name in ('centers_used', 'similarity', *LABELED):
        pairs = [image[name] for image in images if name in image]
        if pairs:
            values, weights = zip(*pairs, strict=True)
            merged[name] = float(np.average(values, weights=weights))
    return merged


def plot(summary: Mapping[str, Any]) -> Figure:
    """Draw what `ClusterStatistics.summary` gives: dots for the heads, a line through their means, by layer."""
    layers = summary['layers']
    curves = [
        ('centers used in a region', 'centers_used'),
        ('points of a cluster', 'cluster_size'),
        (f'{" or ".join(sorted({layer["similarity_scale"] for layer in layers}))} with the own center', 'similarity'),
    ]
    curves += [(name, name) for name in ('alpha', 'beta') if all(layer[name] is not None for layer in layers)]
    titles = {
        LABELED[0]: 'adjusted Rand index with the labels',
        LABELED[1]: 'adjusted Rand index within regions',
    }
    curves += [(titles[name], name) for name in LABELED if any(name in h for layer in layers for h in layer['heads'])]
    columns = 4 if len(curves) > 6 else 3
    rows = -(-len(curves) // columns)
    figure = Figure(figsize=(3.4 * columns, 2.8 * rows + 0.3), layout='constrained')
    for place, (title, name) in enumerate(curves):
        axes = figure.add_subplot(rows, columns, place + 1)
        _draw_curve(axes, layers, name)
        axes.set_title(title, fontsize=10)
        axes.set_xticks(range(len(layers)), [f'{layer["stage"]}.{layer["block"]}' for layer in layers], fontsize=7)
        axes.set_xlabel('stage.block', fontsize=8)
        axes.tick_params(axis='y', labelsize=8)
        axes.grid(alpha=0.3)
    images = summary['images']
    figure.suptitle(f'Clusters in {images} image{"" if images == 1 else "s"}: heads (dots) and their mean', fontsize=11)
    return figure


def _draw_curve(axes: Any, layers: Sequence[Mapping[str, Any]], name: str) -> None:
    blue, red = (tuple(color / 255) for color in palette(3)[[0, 2]])
    places = range(len(layers))
    if name == 'cluster_size':
        sizes = [[head[name] for head in layer['heads']] for layer in layers]
        lowest, highest = (
            [f(head[end] for head in heads) for heads in sizes] for f, end in ((min, 'min'), (max, 'max'))
        )
        mean, std = (np.array([np.mean([head[key] for head in heads]) for heads in sizes]) for key in ('mean', 'std'))
        axes.fill_between(places, lowest, highest, color=blue, alpha=0.15, linewidth=0, label='smallest to largest')
        axes.errorbar(places, mean, std, color=red, linewidth=1.4, elinewidth=1, capsize=2, label='mean, deviation')
        axes.legend(fontsize=7)
        axes.set_ylim(bottom=0)
        return
    means = []
    for x, layer in enumerate(layers):
        values = [layer[name]] if name in layer else [head[name] for head in layer['heads'] if name in head]
        if name not in layer:
            axes.scatter([x] * len(values), values, s=9, color=blue, alpha=0.6, linewidths=0)
        means.append(float(np.mean(values)) if values else np.nan)
    axes.plot(places, means, color=red, linewidth=1.4, marker='.' if name in layers[0] else None)
    if name == 'centers_used':
        there = [layer['centers'] for layer in layers]
        axes.step(places, there, where='mid', color='gray', linewidth=0.8, label='centers there')
        axes.legend(fontsize=7, loc='lower right')
        axes.set_ylim(0, 1.1 * max(there))
