"""Looking at what Context Cluster groups: record the clusters of a forward pass, paint them, and count them."""

from coc_core.visualization.recorder import ClusterRecorder, LayerClusters, cluster_layers

__all__ = ['ClusterRecorder', 'LayerClusters', 'cluster_layers']
