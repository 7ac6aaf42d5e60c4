"""Watches clusters form while a model trains: pictures through the run's Visualizer, and a film of each layer."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from numpy.typing import NDArray
from torch import nn

from coc_core.errors import UserError
from coc_core.files import replacing
from coc_core.mm.models import network_input
from coc_core.visualization.files import write_film, write_image
from coc_core.visualization.painting import resize
from coc_core.visualization.recorder import ClusterRecorder, Layer, LayerClusters, cluster_layers, find_context_cluster
from coc_core.visualization.sheets import contact_sheet, paint

FOLDER = 'clusters'
SHEET = 'contact_sheet.png'


@HOOKS.register_module()
class ClusterVisualizationHook(Hook):  # type: ignore[misc]
    """Paints the clusters of fixed validation images again and again while a model with a Context Cluster trains.

    Every time, the run's Visualizer gets one picture: the chosen layers and all their heads. After training,
    ``clusters/`` in the work folder holds a GIF of each chosen layer from the first step to the last, even if training
    was interrupted and went on, and a contact sheet of every layer and head. Only the main process does anything; the
    model trains as it would without.

    Args:
        samples: Places in the validation data, or how many to take, evenly spread.
        interval: Epochs or iterations between two pictures.
        by_epoch: Whether ``interval`` counts epochs.
        layers: (stage, block) pairs, negative numbers from the end; None: the last block of every stage.
        size: Length that the shorter side of the images is resized to; None leaves them as validation has them.
        alpha: Strength of the colors, from 0 to 1.
        rate: Frames per second of the GIFs.

    Raises:
        UserError: A number is impossible; before training: a sample or a layer does not exist, or the model has no
            Context Cluster.
    """

    priority = 'LOW'

    def __init__(
        self,
        samples: int | Sequence[int] = 2,
        interval: int = 1,
        *,
        by_epoch: bool = True,
        layers: Sequence[Layer] | None = None,
        size: int | None = None,
        alpha: float = 0.6,
        rate: float = 4.0,
    ) -> None:
        if interval < 1 or rate <= 0 or (isinstance(samples, int) and samples < 1) or (size is not None and size < 1):
            raise UserError(
                f'samples={samples}, interval={interval}, size={size} and rate={rate} must be positive numbers.'
            )
        self.samples = samples
        self.interval = interval
        self.by_epoch = by_epoch
        self.layers = layers
        self.size = size
        self.alpha = alpha
        self.rate = rate
        self._images: list[NDArray[Any]] = []
        self._chosen: list[Layer] = []
        # The clusters of each image now; earlier steps lie in files.
        self._now: list[list[LayerClusters]] = []
        self._step = -1

    def before_train(self, runner: Runner) -> None:
        """Take the sample images and, where training begins, paint the first picture."""
        if not is_main_process():
            return
        if runner.val_loop is None:
            runner.logger.warning('ClusterVisualizationHook paints validation images: there are none in this run.')
            return
        model = _unwrapped(runner.model)
        try:
            stages = cluster_layers(model)
            last = {stage: (stage, block) for stage, block in stages}
            wanted = list(last.values()) if self.layers is None else self.layers
            self._chosen = [next(iter(cluster_layers(model, stages=[s], blocks=[b]))) for s, b in wanted]
        except UserError as error:
            if self.layers is not None:
                raise UserError(f'ClusterVisualizationHook: {error}') from error
            # A mixer may have none: no reason not to train it.
            runner.logger.warning(f'ClusterVisualizationHook paints nothing: {error}')
            return
        dataset = runner.val_loop.dataloader.dataset
        self._images = [self._image(dataset[place]['inputs']) for place in self._places(len(dataset))]
        history = _history(runner)
        if runner.iter == 0:
            shutil.rmtree(history, ignore_errors=True)
        # What a training saw after the checkpoint from which it goes on will be seen again.
        for step, path in _steps(history):
            if step > runner.iter:
                path.unlink()
        # A training that goes on has painted this step already, where it had to.
        if runner.iter == 0:
            self._paint(runner, runner.iter)

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Paint every ``interval`` iterations."""
        if not self.by_epoch and self.every_n_train_iters(runner, self.interval):
            self._paint(runner, runner.iter + 1)

    def after_train_epoch(self, runner: Runner) -> None:
        """Paint every ``interval`` epochs."""
        if self.by_epoch and self.every_n_epochs(runner, self.interval):
            self._paint(runner, runner.iter)

    def after_train(self, runner: Runner) -> None:
        """Paint the last picture, the films and the contact sheet, and say where they are."""
        if not self._images:
            return
        if self._step != runner.iter:
            self._paint(runner, runner.iter)
        folder = Path(runner.work_dir) / FOLDER
        for place, layer in enumerate(self._chosen):
            film = folder / film_name(layer)
            if _written(runner, write_film, film, self._frames(runner, place), self.rate, 2.0):
                runner.logger.info(f'How clusters formed: {film}')
        everything = self._look(_unwrapped(runner.model), every=True)
        title = f'{Path(runner.work_dir).name}, iteration {self._step}'
        sheet = contact_sheet(self._images[:1], everything[:1], title=title, alpha=self.alpha)
        if _written(runner, write_image, folder / SHEET, paint(sheet)):
            runner.logger.info(f'Clusters of every layer and head: {folder / SHEET}')

    def _places(self, count: int) -> list[int]:
        if isinstance(self.samples, int):
            number = min(self.samples, count)
            return [(2 * i + 1) * count // (2 * number) for i in range(number)]
        for place in self.samples:
            if not 0 <= place < count:
                raise UserError(
                    f'ClusterVisualizationHook: sample {place} does not exist: the validation data has {count} images.'
                )
        return list(self.samples)

    def _image(self, inputs: torch.Tensor) -> NDArray[Any]:
        """Return what a pipeline gives, BGR [3, H, W], as a picture."""
        image = np.ascontiguousarray(inputs.flip(0).permute(1, 2, 0).numpy())
        if self.size is None:
            return image
        factor = self.size / min(image.shape[:2])
        return resize(image, (round(image.shape[0] * factor), round(image.shape[1] * factor)))

    @torch.no_grad()
    def _look(self, model: nn.Module, *, every: bool = False) -> list[list[LayerClusters]]:
        """Return the clusters of each image, of the chosen layers or of every one."""
        trunk = find_context_cluster(model)
        training = trunk.training
        trunk.eval()
        found = []
        for image in self._images:
            with ClusterRecorder(model) as recorder:
                for _ in trunk.stage_maps(network_input(model, [image])):
                    pass
            layers = recorder.clusters(0, (image.shape[0], image.shape[1]))
            by_place = {(layer.stage, layer.block): layer for layer in layers}
            found.append(layers if every else [by_place[layer] for layer in self._chosen])
        trunk.train(training)
        return found

    def _paint(self, runner: Runner, step: int) -> None:
        if not self._images:
            return
        self._step = step
        self._now = self._look(_unwrapped(runner.model))
        contents: dict[str, Any] = {
            _entry(image, place): layer.assignment.astype(np.int16)
            for image, layers in enumerate(self._now)
            for place, layer in enumerate(layers)
        }
        path = _history(runner) / f'{step:08d}.npz'
        _written(runner, _save_arrays, path, contents)
        sheet = contact_sheet(self._images, self._now, title=f'iteration {step}', alpha=self.alpha)
        runner.visualizer.add_image(FOLDER, paint(sheet), step)

    def _frames(self, runner: Runner, place: int) -> Iterator[NDArray[Any]]:
        """Return the pictures of one layer, step by step."""
        for step, path in _steps(_history(runner)):
            now = [layers[place] for layers in self._now]
            with np.load(path) as contents:
                then = [contents.get(_entry(image, place)) for image in range(len(now))]
            if any(a is None or a.shape != layer.assignment.shape for a, layer in zip(then, now, strict=True)):
                # It was painted before a change of the config.
                continue
            layers = [[replace(layer, assignment=a)] for a, layer in zip(then, now, strict=True)]
            title = f'{now[0].name}: iteration {step} of {self._step}'
            yield paint(contact_sheet(self._images, layers, title=title, alpha=self.alpha))


def film_name(layer: Layer) -> str:
    """Return the name of a layer's GIF in the folder of the hook."""
    return f'stage{layer[0]}_block{layer[1]}.gif'


def _written(runner: Runner, write: Callable[..., None], *arguments: Any) -> bool:
    """Write something; a picture that cannot be written is a warning, for it is no reason to end a training."""
    try:
        write(*arguments)
    except UserError as error:
        runner.logger.warning(f'ClusterVisualizationHook: {error}')
        return False
    return True


def _save_arrays(path: Path, arrays: dict[str, Any]) -> None:
    with replacing(path) as beside:
        np.savez_compressed(beside, **arrays)


def _entry(image: int, place: int) -> str:
    return f'image{image}_layer{place}'


def _history(runner: Runner) -> Path:
    return Path(runner.work_dir) / FOLDER / 'history'


def _steps(folder: Path) -> list[tuple[int, Path]]:
    return sorted((int(path.stem), path) for path in folder.glob('*.npz'))


def _unwrapped(model: nn.Module) -> nn.Module:
    while is_model_wrapper(model):
        model = model.module  # type: ignore[assignment]
    return model
