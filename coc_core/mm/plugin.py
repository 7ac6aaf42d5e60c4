"""What importing a plugin does."""

from __future__ import annotations

from pathlib import Path

from mmengine.registry import Registry

from coc_core.mm import cluster_visualization, layer_decay, progress  # noqa: F401  registers them
from coc_core.mm.backbone import ContextClusterBackbone
from coc_core.mm.safe_loading import install_safe_loader


def register(models: Registry) -> None:
    """Register the backbone as ``ContextCluster`` in ``models`` and make loading checkpoints safe."""
    models.register_module(name='ContextCluster', module=ContextClusterBackbone)
    install_safe_loader()


def project_folder() -> Path:
    """Return the folder that holds ``configs/`` and ``model-index.yml``: the checkout, or a wheel's copy of them."""
    package = Path(__file__).parents[1]
    return package.parent if (package.parent / 'model-index.yml').is_file() else package / '.mim'
