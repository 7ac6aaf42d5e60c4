"""Context Cluster (Image as Set of Points, ICLR 2023): the backbone and its clustering operator."""

from coc_core import checkpoints, ops, timm_models
from coc_core.model import ContextCluster, create_model
from coc_core.variants import VARIANTS, CoCConfig

__all__ = ['VARIANTS', 'CoCConfig', 'ContextCluster', 'checkpoints', 'create_model', 'ops', 'timm_models']
