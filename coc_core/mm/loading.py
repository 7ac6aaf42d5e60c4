"""What reads a data set's files: transforms of its pipeline, so that checks and pictures see what training sees."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from inspect import getmro
from pathlib import Path
from re import fullmatch
from typing import Any

import numpy as np
from mmengine import fileio
from mmengine.registry import TRANSFORMS
from numpy.typing import NDArray
from PIL import Image

from coc_core.mm.mistakes import building
from coc_core.visualization.decoding import decode


@dataclass(frozen=True)
class ImageLoader:
    """Reads images as a pipeline does.

    Attributes:
        transform: The pipeline's transform; None where it is none of mmcv's kind: then mmcv's default decoder.
    """

    transform: Any = None

    def __call__(self, path: Path) -> NDArray[Any]:
        """Return an image as the transform makes it: by default uint8 [H, W, 3], BGR, turned by EXIF orientation.

        Raises:
            Exception: The file cannot be decoded: what the decoder raises.
        """
        if self.transform is None:
            return decode(path)
        data = self.transform({'img_path': str(path)})
        if data is None:
            raise ValueError('ignore_empty leaves it out')
        pixels: NDArray[Any] = data['img']
        return pixels

    @property
    def turns(self) -> bool:
        """Whether images are turned by their EXIF orientation, as mmcv's documentation of the settings says."""
        if self.transform is None:
            return True
        flags = getattr(self.transform, 'color_type', None), getattr(self.transform, 'imdecode_backend', '')
        return flags[0] in ('color', 'grayscale') and flags[1] in ('cv2', 'pillow', None)


@dataclass(frozen=True)
class LabelMapLoader:
    """Reads label maps as a pipeline does, before mmseg casts them to 8 bits.

    Attributes:
        transform: The pipeline's LoadAnnotations; None where it has none: then Pillow, which is mmseg's default.
    """

    transform: Any = None

    def __call__(self, path: Path) -> NDArray[Any]:
        """Return a label map with the file's own values: [H, W], or [H, W, C] where it is none.

        Raises:
            Exception: The file cannot be decoded: what the decoder raises.
        """
        if self.transform is None:
            with Image.open(path) as image:
                return np.asarray(image)
        # Tasks without mmcv have no such transform.
        import mmcv

        content = fileio.get(str(path), backend_args=self.transform.backend_args)
        labels: NDArray[Any] | None = mmcv.imfrombytes(
            content, flag='unchanged', backend=self.transform.imdecode_backend
        )
        if labels is None:
            raise ValueError('it cannot be decoded')
        return labels


def image_loader(pipeline: Any, scope: str | None = None) -> ImageLoader:
    """Return what reads the images of a config's pipeline.

    Args:
        pipeline: The pipeline, as the config has it.
        scope: Where its names are registered; None for the process's default scope.

    Raises:
        UserError: The transform cannot be built.
    """
    return ImageLoader(_built(pipeline, scope, _loads_images))


def label_map_loader(pipeline: Any, scope: str | None = None) -> LabelMapLoader:
    """Return what reads the label maps of a config's pipeline; arguments and errors as of `image_loader`."""
    return LabelMapLoader(_built(pipeline, scope, _loads_label_maps))


def loaders_of(transforms: Iterable[Any]) -> tuple[ImageLoader, LabelMapLoader]:
    """Return what reads images and label maps of a pipeline that is built already."""
    steps = list(transforms)
    return (
        ImageLoader(next((step for step in steps if _loads_images(type(step))), None)),
        LabelMapLoader(next((step for step in steps if _loads_label_maps(type(step))), None)),
    )


def _loads_images(kind: type) -> bool:
    """Whether a class is mmcv's LoadImageFromFile, one named like it that reads one file, or inherits from such."""
    return any(fullmatch(r'Load(?!Multi)\w*ImageFrom\w*File', base.__name__) for base in getmro(kind))


def _loads_label_maps(kind: type) -> bool:
    # A class of the user's own may make labels of anything, such as colors.
    return kind.__name__ == 'LoadAnnotations'


def _built(pipeline: Any, scope: str | None, wanted: Any) -> Any:
    """Build the first step of a pipeline whose class is wanted; None where there is none."""
    steps = pipeline if isinstance(pipeline, (list, tuple)) else []
    with building('a pipeline'), TRANSFORMS.switch_scope_and_registry(scope) as registry:
        for step in steps:
            kind = step.get('type') if isinstance(step, Mapping) else None
            kind = registry.get(kind) if isinstance(kind, str) else kind
            if isinstance(kind, type) and wanted(kind):
                return registry.build(dict(step))
    return None
