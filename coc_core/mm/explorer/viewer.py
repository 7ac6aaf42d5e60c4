"""A model and what it takes to look at its clusters on any picture, from a config or from a variant's name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import TRANSFORMS
from numpy.typing import NDArray
from timm.data import ImageNetInfo
from torch import Tensor, nn

from coc_core import checkpoints
from coc_core.checkpoints.loading import tell_differences
from coc_core.checkpoints.origins import recognize
from coc_core.checkpoints.reading import check_file
from coc_core.errors import UserError, during
from coc_core.mm.configs import load_config
from coc_core.mm.loading import image_loader
from coc_core.mm.mistakes import building
from coc_core.mm.models import build_model, network_input
from coc_core.mm.option_values import read_option
from coc_core.mm.task import test_dataset
from coc_core.mm.trained_classes import classes_of
from coc_core.model import ContextCluster
from coc_core.variants import get_config
from coc_core.visualization.activation import class_activation, paint_activation
from coc_core.visualization.decoding import decode
from coc_core.visualization.files import read_image
from coc_core.visualization.painting import resize
from coc_core.visualization.recorder import ClusterRecorder, LayerClusters, cluster_layers, find_context_cluster

DEFAULT_SIZE = 224
MAX_SIDE = 4096


@dataclass(frozen=True)
class View:
    """What a model made of a picture.

    Attributes:
        image: The picture as the network saw it, without padding: uint8 [H, W, 3], RGB.
        layers: The clusters of the recorded layers, in the order of the network.
        prediction: The class and its score, where the model is a classifier: of the picture as its config tests it,
            whatever size the clusters are shown at.
        activation: Where it finds that class, by Grad-CAM over the image, uint8 [H, W, 3], if it was asked for.
    """

    image: NDArray[Any]
    layers: list[LayerClusters]
    prediction: str | None
    activation: NDArray[Any] | None = None


class ClusterViewer:
    """Runs a model on pictures and records its clusters; made by `from_config` or `from_name`.

    Attributes:
        heads: Number of heads of each layer, by stage and block.
        crops: Whether the test pipeline cuts parts of an image off.

    Args:
        model: A model of mmpretrain, mmdet or mmseg, or a `ContextCluster`.
        name: What messages call it.
        classes: Names of a classifier's classes; empty for numbers.
        transforms: What the test pipeline does to an image, built; None for a plain resize.
        load: What decodes a picture's file, as `read_image` takes it.

    Raises:
        UserError: The model has no clusters.
    """

    def __init__(
        self,
        model: nn.Module,
        name: str,
        *,
        classes: Sequence[str] = (),
        transforms: Sequence[Any] | None = None,
        load: Callable[[Path], NDArray[Any]] = decode,
    ) -> None:
        self.model = model.eval().to(torch.device('cuda' if torch.cuda.is_available() else 'cpu'))
        self.name = name
        self.classes = list(classes)
        self.crops = any('Crop' in type(step).__name__ for step in transforms or ())
        self._transforms = transforms
        self._load = load
        try:
            self.heads = {layer: mixer.heads for layer, mixer in cluster_layers(model).items()}
        except UserError as error:
            raise UserError(f'{name}: {error}') from error

    @classmethod
    def from_config(cls, config: str, checkpoint: str, options: Mapping[str, Any] | None = None) -> ClusterViewer:
        """Build the model of a config and load a checkpoint.

        Raises:
            UserError: The config cannot be read or built, or its model has no clusters.
            CheckpointError: The checkpoint cannot be read, is another model's, or gives the classes other labels.
        """
        check_file(Path(checkpoint).expanduser())
        cfg = load_config(config, options)
        model = build_model(cfg, config)
        with building(f'the test pipeline of {config}'):
            transforms = [TRANSFORMS.build(step) for step in _geometry(cfg)]
        load = image_loader(test_dataset(cfg).get('pipeline'))
        viewer = cls(model, config, transforms=transforms, load=load)
        content = checkpoints.read(checkpoint)
        tell_differences(checkpoints.load_content(model, content, checkpoint))
        viewer.classes = list(classes_of(cfg, content, checkpoint).get('classes') or ())
        return viewer

    @classmethod
    def from_name(cls, name: str, checkpoint: str, overrides: Mapping[str, Any] | None = None) -> ClusterViewer:
        """Build the classifier of a variant, with as many classes as the checkpoint has, and load that.

        Args:
            name: The variant.
            checkpoint: The checkpoint file.
            overrides: Fields of ``CoCConfig``, as `load_config` takes options.

        Raises:
            UserError: There is no such variant, or a field in ``overrides`` is none of ``CoCConfig`` or does not fit.
            CheckpointError: The checkpoint cannot be read, or is another model's.
        """
        check_file(Path(checkpoint).expanduser())
        content = checkpoints.read(checkpoint)
        source = recognize(content, checkpoint)
        try:
            config = get_config(name)
            fields = {
                key: read_option(key, given, getattr(config, key, None)) for key, given in (overrides or {}).items()
            }
            config = config.override(**fields)
        except UserError as error:
            raise UserError(f'--model {name}: {error}') from error
        count = 0
        if source.task == 'classification':
            count = next((len(value) for key, value in source.weights.items() if key == 'head.weight'), 0)
            model = ContextCluster(config, num_classes=count)
        else:
            model = ContextCluster(config, dense_indices=range(config.num_stages))
        tell_differences(checkpoints.load_content(model, content, checkpoint))
        return cls(model, name, classes=_imagenet_names() if count == 1000 else ())

    def read(self, path: Path) -> NDArray[Any]:
        """Read a picture as the config's test pipeline does, by name as mmcv does by default: uint8 [H, W, 3], RGB.

        Raises:
            UserError: See `read_image`.
        """
        return read_image(path, load=self._load)

    def look(
        self,
        image: NDArray[Any],
        *,
        size: tuple[int, int] | None = None,
        stages: Sequence[int] | None = None,
        blocks: Sequence[int] | None = None,
        similarities: bool = False,
        activation: bool = False,
    ) -> View:
        """Run the model on a picture and record clusters.

        Args:
            image: uint8 [H, W, 3], RGB.
            size: Height and width to resize to; None: as the config tests, or 224 on the shorter side.
            stages: See `ClusterRecorder`.
            blocks: See `ClusterRecorder`.
            similarities: See `ClusterRecorder`.
            activation: Whether to ask Grad-CAM where the predicted class is found.

        Raises:
            UserError: There is no such stage or block, the picture cannot be brought to a size that fits, or an
                activation is asked for of a model that predicts no class, or without grad-cam.
        """
        shown = self._prepared(image, size)
        try:
            recorder = ClusterRecorder(self.model, stages=stages, blocks=blocks, similarities=similarities)
        except UserError as error:
            raise UserError(f'{self.name}: {error}') from error
        with torch.no_grad(), recorder:
            logits = self._run(shown)
        if logits is not None and size is not None and self._transforms is not None:
            with torch.no_grad():
                logits = self._run(self._prepared(image, None))
        prediction = None if logits is None else self._named(logits)
        heat = self._activation(shown, logits) if activation else None
        return View(shown, recorder.clusters(0, (shown.shape[0], shown.shape[1])), prediction, heat)

    def _activation(self, shown: NDArray[Any], logits: Tensor | None) -> NDArray[Any]:
        if logits is None:
            raise UserError(f'{self.name} predicts no class, and Grad-CAM shows where one is found: use a classifier.')
        return paint_activation(
            shown, class_activation(self.model, network_input(self.model, [shown]), int(logits.argmax()))
        )

    def _prepared(self, image: NDArray[Any], size: tuple[int, int] | None) -> NDArray[Any]:
        """Return the picture as the network sees it, uint8 [H, W, 3], RGB."""
        if size is None and self._transforms is not None:
            shown = _transformed(image, self._transforms)
            _check_side(shown.shape[:2])
            return shown
        if size is None:
            factor = DEFAULT_SIZE / min(image.shape[:2])
            size = (max(1, round(image.shape[0] * factor)), max(1, round(image.shape[1] * factor)))
        _check_side(size)
        return resize(image, size)

    def _run(self, shown: NDArray[Any]) -> Tensor | None:
        """Run all that has clusters on a picture; return a classifier's logits, [classes]."""
        inputs = network_input(self.model, [shown])
        trunk = find_context_cluster(self.model)
        whole = trunk.num_classes > 0 if trunk is self.model else getattr(self.model, 'head', None) is not None
        if whole:
            logits: Tensor = self.model(inputs)[0]
            return logits
        # Necks and heads of dense models are not needed to see the clusters.
        *_, _ = trunk.stage_maps(inputs)
        return None

    def _named(self, logits: Tensor) -> str:
        scores = logits.softmax(dim=0)
        best = int(scores.argmax())
        # Names of another number of classes are those of something else.
        name = self.classes[best] if len(self.classes) == len(scores) else f'class {best}'
        return f'{name} ({float(scores[best]):.2f})'


def _check_side(size: Sequence[int]) -> None:
    if max(size) > MAX_SIDE:
        raise UserError(
            f'The network would see {size[0]}x{size[1]} pixels, and {MAX_SIDE} on a side is the most: '
            'say a smaller --size.'
        )


def _transformed(image: NDArray[Any], transforms: Sequence[Any]) -> NDArray[Any]:
    data: Any = {'img': image[..., ::-1].copy(), 'img_shape': image.shape[:2], 'ori_shape': image.shape[:2]}
    for transform in transforms:
        with during(f'running {type(transform).__name__} of the test pipeline, which --size SIZE leaves out'):
            data = transform(data)
    shown: NDArray[Any] = np.ascontiguousarray(data['img'][..., ::-1])
    return shown


def _geometry(cfg: Config) -> list[Any]:
    """Return the steps of the test pipeline that change the image, not those that read files and pack the sample."""
    steps = test_dataset(cfg).get('pipeline', [])
    return [step for step in steps if not str(step['type']).rpartition('.')[2].startswith(('Load', 'Pack'))]


def _imagenet_names() -> list[str]:
    info = ImageNetInfo()
    return [info.index_to_description(i) for i in range(info.num_classes())]
