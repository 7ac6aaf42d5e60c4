"""Where the pictures of a test go."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmengine.visualization.vis_backend import BaseVisBackend
from mmseg.registry import VISBACKENDS
from numpy.typing import NDArray

from coc_core.visualization.files import write_image


@VISBACKENDS.register_module()
class NamedPictures(BaseVisBackend):  # type: ignore[misc]
    """Writes the pictures that mmseg's hook draws of a test as ``IMAGE.png``, and nothing else.

    mmengine's own backend has ``vis_data/vis_image/test_IMAGE.jpg_7.png``. Where images of several folders have one
    name, those after the first keep the number.
    """

    def __init__(self, save_dir: str) -> None:
        super().__init__(save_dir)
        self._written: set[str] = set()

    def _init_env(self) -> None:
        """Make nothing: files make their folder."""

    @property
    def experiment(self) -> NamedPictures:
        """What writes."""
        return self

    def add_image(self, name: str, image: NDArray[Any], step: int = 0, **kwargs: Any) -> None:
        """Write a picture, uint8 [H, W, 3], RGB.

        Raises:
            UserError: It cannot be written.
        """
        stem = Path(name.removeprefix('test_')).stem
        own = f'{stem}_{step}' if stem in self._written else stem
        self._written.add(stem)
        write_image(Path(self._save_dir) / f'{own}.png', image)
