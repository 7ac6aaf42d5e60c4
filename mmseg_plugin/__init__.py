"""Context Cluster in mmseg: ``custom_imports = dict(imports=['mmseg_plugin'])`` in a config."""

from coc_core.mm.requirements import check_openmmlab

check_openmmlab('mmseg')

from mmseg.registry import MODELS  # noqa: E402

from coc_core.mm.plugin import register  # noqa: E402
from mmseg_plugin import losses  # noqa: E402, F401  registers its loss
from mmseg_plugin.task import SegmentationTask  # noqa: E402

register(MODELS, SegmentationTask())
