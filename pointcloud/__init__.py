"""Point clouds in mmengine: ``custom_imports = dict(imports=['pointcloud'])`` in a config."""

from coc_core.mm.requirements import check_openmmlab

check_openmmlab('mmengine')

from coc_core.mm import mixed_precision  # noqa: E402, F401  registers its wrapper
from coc_core.mm.fault_tolerance import file_backend, saving, stopping  # noqa: E402, F401  registers them
from coc_core.mm.hooks import progress  # noqa: E402, F401  registers the progress bar
from coc_core.mm.safe_loading import install_safe_loader  # noqa: E402
from coc_core.mm.task import register_task  # noqa: E402
from pointcloud import dataset, metrics, models, origins, transforms  # noqa: E402, F401  registers them
from pointcloud.classifier import PointCloudClassifier, create_model  # noqa: E402
from pointcloud.task import PointCloudTask  # noqa: E402
from pointcloud.variants import VARIANTS, PointMLPConfig  # noqa: E402

__all__ = ['VARIANTS', 'PointCloudClassifier', 'PointMLPConfig', 'create_model']

register_task(PointCloudTask())
install_safe_loader()
