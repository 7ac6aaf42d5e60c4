"""Context Cluster in mmpretrain: ``custom_imports = dict(imports=['mmpretrain_plugin'])`` in a config."""

from coc_core.mm.requirements import check_openmmlab

check_openmmlab('mmengine', 'mmcv', 'mmpretrain')

from mmpretrain.registry import MODELS  # noqa: E402

from coc_core.mm.plugin import register  # noqa: E402

register(MODELS)
