"""What the tools ask of a task: each plugin registers one object when it is imported."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from mmengine.config import Config
from torch import nn

from coc_core.checkpoints.layouts import Layout, register_layout
from coc_core.errors import UserError
from coc_core.mm.data_checks.inspection import Inspection, dataset_class, inspect_files
from coc_core.mm.data_checks.problems import Problem

if TYPE_CHECKING:
    from coc_core.mm.own_data.plan import DataRequest, Plan
    from coc_core.mm.prediction.predictions import Predictions


class Task:
    """What differs between tasks; a subclass states it, and every tool then serves the task.

    Attributes:
        scope: mmengine's ``default_scope`` of the task's configs.
        layout: How whole models of the task name what stands around the backbone, for their checkpoints.
        loader_defaults: What data loaders have where a config is silent, as the task's stock tools add it.
        tta_model: What averages over augmented copies (``--tta``) where a config sets no ``tta_model``.
        prediction_endings: Endings that a file of predictions (``--out``) may have; none where it is a folder.
        counts_otherwise: Keys and types of a model's parts whose ``num_classes`` counts something else than the data's
            classes.
    """

    scope = 'mmengine'
    layout: Layout | None = None
    loader_defaults: Mapping[str, Any] = {}
    tta_model: Mapping[str, Any] | None = None
    prediction_endings: tuple[str, ...] = ('.pkl', '.pickle')
    counts_otherwise: frozenset[str] = frozenset({'backbone', 'data_preprocessor'})

    def tta_pipeline(self, pipeline: Sequence[Any]) -> list[Any] | None:
        """Return the test pipeline with augmented copies, where a config sets no ``tta_pipeline``."""
        return None

    def check_augmentation(self, cfg: Config) -> None:
        """Check that the predictions of a config's model can be averaged.

        Raises:
            UserError: They cannot.
        """

    def predictions(self) -> type[Predictions] | None:
        """Return the class of what becomes of predictions of files; None where nobody says it."""
        return None

    def predicted_files(self) -> Any:
        """Return the class that reads the files that are predicted, which is made with the test pipeline's steps."""
        # What trains has no use for it.
        from coc_core.mm.prediction.image_files import ImageFiles

        return ImageFiles

    def dump_predictions(self, cfg: Config, out: str) -> None:
        """Change a config so that testing writes its predictions to ``out``."""
        add_evaluator(cfg, dict(type='DumpResults', out_file_path=out))

    def report(self) -> str | None:
        """Return the name of the evaluator that writes a report of a test, registered; None where there is none.

        It is made with what a `coc_core.mm.reports.metric.ReportMetric` takes.
        """
        return None

    def show_predictions(
        self, cfg: Config, *, window: bool, folder: str | None, interval: int, wait_time: float
    ) -> None:
        """Change a config so that testing shows its predictions.

        Args:
            cfg: The config, which is changed.
            window: Whether in a window.
            folder: The folder of the pictures, absolute, or None.
            interval: Every how many samples, where the task can choose.
            wait_time: Seconds for which the window shows one picture.

        Raises:
            UserError: The task has no pictures.
        """
        hook = visualization_hook(cfg)
        hook.update(draw=True, show=window, wait_time=wait_time)
        if folder:
            cfg.visualizer.save_dir = folder

    def inspect(self, inspection: Inspection, dataset: Mapping[str, Any], *, files: bool) -> None:
        """Add the checks of one data set of a config; its class may do so itself by a class method ``inspect``.

        Args:
            inspection: What they are added to.
            dataset: Its config.
            files: Whether the samples' files will be opened.
        """
        kind = dataset_class(self.scope, dataset)
        if hasattr(kind, 'inspect'):
            kind.inspect(inspection, dataset)
        elif files:
            inspect_files(inspection, self.scope, dataset)

    def config_problems(self, cfg: Config, phase: str) -> Iterator[Problem]:
        """Yield what of a config would have the task's data learned or measured in another way than it says.

        Args:
            cfg: The config.
            phase: Out of train, val, test.
        """
        yield from ()

    def plan(self, request: DataRequest) -> Plan:
        """Read a user's data and return what ``tools/new_config.py`` writes for a training on it.

        Raises:
            UserError: The data is not laid out as the task needs it, or an argument does not fit.
        """
        raise UserError(f'{self.scope} writes no config for data of your own.')

    def counting_parts(self, cfg: Mapping[str, Any]) -> dict[str, Any]:
        """Return the parts of a config that are made for a number of classes, by their keys joined by dots."""
        return {'model': cfg.get('model')}

    def class_count(self, part: Mapping[str, Any], key: str, classes: int) -> int | None:
        """Return what an entry of such a part must be, or how many values it must have, for so many classes.

        Args:
            part: The part, or one of its parts.
            key: The entry's key.
            classes: The number of classes.

        Returns:
            The number; None where the entry does not count classes, or nobody knows how.
        """
        return classes if key in ('num_classes', 'class_weight', 'pos_weight') else None

    def pitfall(self, part: Mapping[str, Any], key: str) -> str | None:
        """Return what an entry of such a part may lead to, as the rest of a sentence; None where it is harmless."""
        return None

    def exported_part(self, model: nn.Module) -> tuple[nn.Module, list[str]]:
        """Return what is exported of a model, and the names of its outputs: here `backbone_part`."""
        return self.backbone_part(model)

    def backbone_part(self, model: nn.Module) -> tuple[nn.Module, list[str]]:
        """Return the backbone of a model for images, and the names of its maps.

        Raises:
            UserError: It has none.
        """
        if not hasattr(model, 'backbone'):
            raise UserError(f'{type(model).__name__} has no backbone of its own: leave --backbone out.')
        indices = getattr(model.backbone, 'out_indices', range(4))
        return model.backbone, [f'stage{index}' for index in indices]  # type: ignore[return-value, union-attr]

    def input_shape(self, cfg: Config, size: Sequence[int] | None) -> tuple[int, ...]:
        """Return the shape of one input of the exported part, without the batch.

        Args:
            cfg: The config.
            size: What the user asks for; None for what the test pipeline makes.

        Raises:
            UserError: The size is impossible, or must be said.
        """
        size = size or self.tested_size(cfg)
        if size is None:
            raise UserError(f'{self.scope} has no fixed image size: say it with --size HEIGHT WIDTH.')
        if len(size) > 2 or min(size) < 1:
            raise UserError(f'--size {" ".join(map(str, size))}: give height and width.')
        part = cfg.model.get('backbone') or cfg.model
        # A whole model of timm has its own word for it.
        return (part.get('in_channels') or part.get('in_chans') or 3, size[0], size[-1])

    def tested_size(self, cfg: Config) -> Sequence[int] | None:
        """Return the size that a test pipeline gives every input; None where it depends on the image."""
        return None


_TASKS: dict[str, Task] = {}


def register_task(task: Task) -> None:
    """Make the tools, and the checkpoints, know a task; a later one of the same scope takes its place."""
    _TASKS[task.scope] = task
    if task.layout is not None:
        register_layout(task.layout)


def task_of(cfg: Mapping[str, Any]) -> Task:
    """Return the task of a config by its ``default_scope``.

    A config that does not import its scope's plugin, such as a package's own, gets it by the name ``SCOPE_plugin``. A
    scope without any has a plain `Task`.
    """
    scope = cfg.get('default_scope') or 'mmengine'
    if scope not in _TASKS and find_spec(f'{scope}_plugin') is not None:
        import_module(f'{scope}_plugin')
    if scope in _TASKS:
        return _TASKS[scope]
    task = Task()
    task.scope = scope
    return task


def test_dataset(cfg: Config) -> Any:
    """Return the config of a config's test data, without what wraps it; an empty one where there is none.

    Of data sets that are joined it is the first: their classes are the same, and their pipelines.
    """
    dataset: Any = (cfg.get('test_dataloader') or {}).get('dataset') or {}
    while inner := dataset.get('dataset') or next(iter(dataset.get('datasets') or ()), None):
        dataset = inner
    return dataset


def add_evaluator(cfg: Config, evaluator: Mapping[str, Any]) -> None:
    """Add an evaluator to those of a config's test."""
    evaluators = cfg.test_evaluator if isinstance(cfg.test_evaluator, list) else [cfg.test_evaluator]
    cfg.test_evaluator = [*evaluators, dict(evaluator)]


def visualization_hook(cfg: Config) -> Any:
    """Return the config of the hook that draws predictions.

    Raises:
        UserError: There is none.
    """
    hook = (cfg.get('default_hooks') or {}).get('visualization')
    if hook is None:
        raise UserError(
            '--show and --show-dir: this task has no pictures to show (default_hooks of the config have no '
            'visualization).'
        )
    return hook
