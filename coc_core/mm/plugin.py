"""What importing a plugin does."""

from __future__ import annotations

from mmengine.registry import Registry

from coc_core.mm import layer_decay, mixed_precision  # noqa: F401  registers them
from coc_core.mm.backbone import ContextClusterBackbone
from coc_core.mm.fault_tolerance import file_backend, saving, stopping  # noqa: F401  registers them
from coc_core.mm.hooks import clusters, progress  # noqa: F401  registers them
from coc_core.mm.safe_loading import install_safe_loader
from coc_core.mm.task import Task, register_task


def register(models: Registry, task: Task) -> None:
    """Register a task and, in ``models``, the backbone as ``ContextCluster``; make loading checkpoints safe."""
    register_task(task)
    models.register_module(name='ContextCluster', module=ContextClusterBackbone)
    install_safe_loader()
