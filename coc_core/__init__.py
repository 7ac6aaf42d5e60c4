"""Context Cluster (Image as Set of Points, ICLR 2023): the backbone and its clustering operator."""

from coc_core.torchvision_operators import declare_missing_operators

# timm imports torchvision, which fails where its compiled operators do not fit the torch build.
declare_missing_operators()

from coc_core import checkpoints, ops, timm_models  # noqa: E402
from coc_core.model import ContextCluster, create_model  # noqa: E402
from coc_core.variants import VARIANTS, CoCConfig  # noqa: E402

__all__ = ['VARIANTS', 'CoCConfig', 'ContextCluster', 'checkpoints', 'create_model', 'ops', 'timm_models']
