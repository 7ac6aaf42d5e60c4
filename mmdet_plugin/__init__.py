"""Context Cluster in mmdet: ``custom_imports = dict(imports=['mmdet_plugin'])`` in a config."""

from coc_core.mm.requirements import check_openmmlab

check_openmmlab('mmdet')

from mmdet.registry import MODELS  # noqa: E402

from coc_core.mm.plugin import register  # noqa: E402
from mmdet_plugin import mixed_precision  # noqa: E402, F401  registers its modules
from mmdet_plugin.task import DetectionTask  # noqa: E402

register(MODELS, DetectionTask())
