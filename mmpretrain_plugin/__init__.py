"""Context Cluster in mmpretrain: ``custom_imports = dict(imports=['mmpretrain_plugin'])`` in a config."""

from coc_core.mm.requirements import check_openmmlab

check_openmmlab('mmpretrain')

# Here, while a config is read, what mmpretrain says of optional data sets is passed over.
import mmpretrain.datasets  # noqa: E402, F401
from mmpretrain.apis import ModelHub  # noqa: E402
from mmpretrain.registry import MODELS  # noqa: E402

import mmpretrain_plugin.shards  # noqa: E402, F401
from coc_core.files import project_folder  # noqa: E402
from coc_core.mm.plugin import register  # noqa: E402
from mmpretrain_plugin.task import ClassificationTask  # noqa: E402

register(MODELS, ClassificationTask())
# `mmpretrain.get_model` and `list_models` know the configs by name.
ModelHub.register_model_index(
    project_folder() / 'configs' / 'classification' / 'metafile.yml', config_prefix=project_folder()
)
