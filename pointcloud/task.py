"""Point clouds in the tools."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from mmengine.config import Config
from torch import nn

from coc_core.errors import UserError
from coc_core.mm.data_checks.problems import Problem
from coc_core.mm.task import Task
from pointcloud.config_checks import config_problems

if TYPE_CHECKING:
    from coc_core.mm.own_data.plan import DataRequest, Plan
    from pointcloud.files import CloudFiles
    from pointcloud.predictions import CloudPredictions


class PointCloudTask(Task):
    """One class for each cloud of points."""

    scope = 'pointcloud'

    def config_problems(self, cfg: Config, phase: str) -> Iterator[Problem]:
        """Yield where clouds are measured otherwise than learned."""
        return config_problems(cfg, phase)

    def plan(self, request: DataRequest) -> Plan:
        """Plan a config for clouds in HDF5 files, or in class folders."""
        # Only the tool that writes configs needs it.
        from pointcloud.own_data import plan

        return plan(request)

    def report(self) -> str:
        """Return the evaluator behind a report."""
        # What trains has no use for it.
        from pointcloud.reports import CloudReport

        name: str = CloudReport.__name__
        return name

    def predictions(self) -> type[CloudPredictions]:
        """Return what becomes of predicted clouds."""
        from pointcloud.predictions import CloudPredictions

        return CloudPredictions

    def predicted_files(self) -> type[CloudFiles]:
        """Return what reads files of clouds."""
        from pointcloud.files import CloudFiles

        return CloudFiles

    def exported_part(self, model: nn.Module) -> tuple[nn.Module, list[str]]:
        """Return the whole classifier."""
        return model, ['logits']

    def input_shape(self, cfg: Config, size: Sequence[int] | None) -> tuple[int, ...]:
        """Return [points, 3]."""
        size = size or [step.num_points for step in cfg.test_dataloader.dataset.pipeline if 'num_points' in step][-1:]
        if len(size) != 1 or size[0] < 1:
            raise UserError(f'--size {" ".join(map(str, size))}: give one number, of points.')
        return (size[0], 3)
