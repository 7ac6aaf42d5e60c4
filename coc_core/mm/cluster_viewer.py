"""A model and what it takes to look at its clusters on any picture, from a config or from a variant's name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS, MODELS, TRANSFORMS, init_default_scope
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn

from coc_core import checkpoints
from coc_core.checkpoints.recognition import recognise
from coc_core.mm.errors import LaunchError
from coc_core.mm.launch import load_config, replace_sync_batch_norm
from coc_core.mm.resuming import check_checkpoint_file
from coc_core.model import ContextCluster
from coc_core.variants import get_config
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
    """

    image: np.ndarray
    layers: list[LayerClusters]
    prediction: str | None


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

    Raises:
        LaunchError: The model has no clusters.
    """

    def __init__(
        self,
        model: nn.Module,
        name: str,
        *,
        classes: Sequence[str] = (),
        transforms: Sequence[Any] | None = None,
    ) -> None:
        self.model = model.eval().to(torch.device('cuda' if torch.cuda.is_available() else 'cpu'))
        self.name = name
        self.classes = list(classes)
        self.crops = any('Crop' in type(step).__name__ for step in transforms or ())
        self._transforms = transforms
        try:
            self.heads = {layer: mixer.heads for layer, mixer in cluster_layers(model).items()}
        except ValueError as error:
            raise LaunchError(f'{name}: {error}') from error

    @classmethod
    def from_config(cls, config: str, checkpoint: str, options: Mapping[str, Any] | None = None) -> ClusterViewer:
        """Build the model of a config and load a checkpoint.

        Raises:
            LaunchError: The config cannot be read or built, or its model has no clusters.
            CheckpointError: The checkpoint cannot be read, or is another model's.
        """
        check_checkpoint_file(Path(checkpoint).expanduser())
        cfg = load_config(config, options)
        init_default_scope(cfg.get('default_scope', 'mmengine'))
        replace_sync_batch_norm(cfg.get('model'))
        if cfg.get('data_preprocessor'):
            # As mmengine's runner does.
            cfg.model.setdefault('data_preprocessor', cfg.data_preprocessor)
        try:
            model = MODELS.build(cfg.model)
            transforms = [TRANSFORMS.build(step) for step in _geometry(cfg)]
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise LaunchError(f'The model of {config} cannot be built: {error}') from error
        viewer = cls(model, config, classes=_class_names(cfg), transforms=transforms)
        checkpoints.load(model, checkpoint)
        return viewer

    @classmethod
    def from_name(cls, name: str, checkpoint: str, overrides: Mapping[str, Any] | None = None) -> ClusterViewer:
        """Build the classifier of a variant, with as many classes as the checkpoint has, and load that.

        Raises:
            LaunchError: There is no such variant, or a field in ``overrides`` is none of `CoCConfig`.
            CheckpointError: The checkpoint cannot be read, or is another model's.
        """
        check_checkpoint_file(Path(checkpoint).expanduser())
        content = checkpoints.read(checkpoint)
        source = recognise(content, checkpoint)
        try:
            config = get_config(name).override(**(overrides or {}))
        except (TypeError, ValueError) as error:
            raise LaunchError(f'--model {name}: {error}') from error
        count = 0
        if source.task == 'classification':
            count = next((len(value) for key, value in source.weights.items() if key == 'head.weight'), 0)
            model = ContextCluster(config, num_classes=count)
        else:
            model = ContextCluster(config, dense_indices=range(config.num_stages))
        checkpoints.fit(model, content, checkpoint)
        return cls(model, name, classes=_imagenet_names() if count == 1000 else ())

    def look(
        self,
        image: np.ndarray,
        *,
        size: tuple[int, int] | None = None,
        stages: Sequence[int] | None = None,
        blocks: Sequence[int] | None = None,
        similarities: bool = False,
    ) -> View:
        """Run the model on a picture and record clusters.

        Args:
            image: uint8 [H, W, 3], RGB.
            size: Height and width to resize to; None: as the config tests, or 224 on the shorter side.
            stages: See `ClusterRecorder`.
            blocks: See `ClusterRecorder`.
            similarities: See `ClusterRecorder`.

        Raises:
            LaunchError: There is no such stage or block, or the picture cannot be brought to a size that fits.
        """
        shown = self._prepared(image, size)
        try:
            recorder = ClusterRecorder(self.model, stages=stages, blocks=blocks, similarities=similarities)
        except ValueError as error:
            raise LaunchError(f'{self.name}: {error}') from error
        with torch.no_grad(), recorder:
            logits = self._run(shown)
        if logits is not None and size is not None and self._transforms is not None:
            with torch.no_grad():
                logits = self._run(self._prepared(image, None))
        prediction = None if logits is None else self._named(logits)
        return View(shown, recorder.clusters(0, (shown.shape[0], shown.shape[1])), prediction)

    def _prepared(self, image: np.ndarray, size: tuple[int, int] | None) -> np.ndarray:
        """The picture as the network sees it, uint8 [H, W, 3], RGB."""
        if size is None and self._transforms is not None:
            shown = _transformed(image, self._transforms)
            _check_side(shown.shape[:2])
            return shown
        if size is None:
            factor = DEFAULT_SIZE / min(image.shape[:2])
            size = (max(1, round(image.shape[0] * factor)), max(1, round(image.shape[1] * factor)))
        _check_side(size)
        return resized(image, size)

    def _run(self, shown: np.ndarray) -> Tensor | None:
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
        name = self.classes[best] if best < len(self.classes) else f'class {best}'
        return f'{name} ({float(scores[best]):.2f})'


def _check_side(size: Sequence[int]) -> None:
    if max(size) > MAX_SIDE:
        raise LaunchError(
            f'The network would see {size[0]}x{size[1]} pixels, and {MAX_SIDE} on a side is the most: '
            'say a smaller --size.'
        )


def network_input(model: nn.Module, images: Sequence[np.ndarray]) -> Tensor:
    """Return the normalised batch of pictures, [B, 3, H, W], as a model's own preprocessor makes it, padding included.

    Args:
        model: A model of mmpretrain, mmdet or mmseg, or a `ContextCluster`, which gets ImageNet's mean and deviation.
        images: Each uint8 [H, W, 3], RGB, all of one size.
    """
    batch = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
    preprocessor = getattr(model, 'data_preprocessor', None)
    if preprocessor is None:
        mean, std = (torch.tensor(values)[:, None, None] for values in (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD))
        return ((batch / 255 - mean) / std).to(next(model.parameters()).device)
    # The packages' pipelines read images as BGR.
    inputs: Tensor = preprocessor({'inputs': list(batch.flip(1))}, False)['inputs']
    return inputs


def resized(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize an image to (height, width): uint8 [*size, 3]."""
    from PIL import Image

    return np.asarray(Image.fromarray(image).resize((size[1], size[0]), Image.Resampling.BICUBIC))


def _transformed(image: np.ndarray, transforms: Sequence[Any]) -> np.ndarray:
    data: Any = {'img': image[..., ::-1].copy(), 'img_shape': image.shape[:2], 'ori_shape': image.shape[:2]}
    for transform in transforms:
        try:
            data = transform(data)
        except Exception as error:
            raise LaunchError(f'{type(transform).__name__} of the test pipeline fails: {error}; say --size.') from error
    shown: np.ndarray = np.ascontiguousarray(data['img'][..., ::-1])
    return shown


def _test_dataset(cfg: Config) -> Any:
    dataset: Any = (cfg.get('test_dataloader') or {}).get('dataset') or {}
    while 'dataset' in dataset:
        dataset = dataset.dataset
    return dataset


def _geometry(cfg: Config) -> list[Any]:
    """The steps of the test pipeline that change the image, without those that read files and pack the sample."""
    steps = _test_dataset(cfg).get('pipeline', [])
    return [step for step in steps if not str(step['type']).rpartition('.')[2].startswith(('Load', 'Pack'))]


def _class_names(cfg: Config) -> Sequence[str]:
    """The classes of the test data; none where neither the config nor the data set's class names them."""
    dataset = _test_dataset(cfg)
    if 'type' not in dataset:
        return ()
    with DATASETS.switch_scope_and_registry(None) as registry:
        known = getattr(registry.get(dataset['type']), 'METAINFO', {})
    names: Sequence[str] = {**known, **(dataset.get('metainfo') or {})}.get('classes', ())
    return names


def _imagenet_names() -> list[str]:
    from timm.data import ImageNetInfo

    info = ImageNetInfo()
    return [info.index_to_description(i) for i in range(info.num_classes())]
