"""What becomes of predictions: columns of a table, pictures and other files; each task has its class."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.registry import VISUALIZERS
from numpy.typing import NDArray
from torch import Tensor

from coc_core.mm.mistakes import building
from coc_core.mm.prediction.inputs import Shard


@dataclass(frozen=True)
class Wishes:
    """What the user asks of predictions.

    Attributes:
        score: The least score of an object, where the task finds objects.
        top_k: How many classes are listed, where one class is meant.
    """

    score: float | None = None
    top_k: int = 5


class Predictions:
    """What becomes of a task's predictions; the base of each task's class.

    Attributes:
        default_score: The least score of an object where the user says none; None where there are no objects.
        picture_ending: The format of pictures.

    Args:
        meta: What the data set says of its classes: ``classes``, ``palette`` and so on.
        wishes: What the user asks for.
        visualizer: The config's ``visualizer``; None where it has none.
    """

    default_score: float | None = None
    picture_ending = '.jpg'

    def __init__(self, meta: Mapping[str, Any], wishes: Wishes, visualizer: Mapping[str, Any] | None = None) -> None:
        self.meta = meta
        self.classes: Sequence[str] = meta.get('classes') or ()
        self.wishes = wishes
        self._visualizer_config = visualizer
        self._visualizer: Any = None

    @property
    def visualizer(self) -> Any:
        """The package's visualizer, built when the first picture is drawn."""
        if self._visualizer is None:
            kind = (self._visualizer_config or {}).get('type', 'Visualizer')
            with building('the visualizer'):
                # What it draws is written by `draw` alone.
                self._visualizer = VISUALIZERS.build(dict(type=kind, name='predictions'))
            self._visualizer.dataset_meta = dict(self.meta)
        return self._visualizer

    def class_name(self, label: int) -> str:
        """Return the name of a class; its number where nobody names it."""
        return str(self.classes[label]) if label < len(self.classes) else f'class {label}'

    def top_classes(self, scores: Tensor) -> dict[str, Any]:
        """Return the columns of the best classes: the first by itself, and the first ones in a list.

        Args:
            scores: The score of each class, [classes].
        """
        # Names of another number of classes are those of something else.
        name = self.class_name if len(self.classes) == len(scores) else 'class {}'.format
        values, labels = scores.float().cpu().topk(min(self.wishes.top_k, len(scores)))
        top = [
            {'class': name(label), 'label': label, 'score': round(value, 6)}
            for label, value in zip(labels.tolist(), values.tolist(), strict=True)
        ]
        return {**top[0], 'top': top}

    def columns(self, sample: Any) -> dict[str, Any]:
        """Return what the table says of a prediction.

        Args:
            sample: The data sample that the model returned.
        """
        raise NotImplementedError

    def draw(self, image: NDArray[Any], sample: Any, path: Path) -> None:
        """Write the picture of a prediction.

        Args:
            image: What was predicted, as the task's files show it.
            sample: The data sample that the model returned.
            path: The file.
        """
        raise NotImplementedError

    def write_beside(self, sample: Any, out: Path, name: str) -> dict[str, Any]:
        """Write what a prediction has beside the table and pictures, whatever the user says of pictures.

        Args:
            sample: The data sample that the model returned.
            out: The folder of all predictions.
            name: The sample's path within.

        Returns:
            Columns that name what was written.
        """
        return {}

    def write_at_end(self, rows: Iterable[Mapping[str, Any]], stem: Path, shard: Shard) -> list[Path]:
        """Write, of a finished table, what others read instead of it.

        Args:
            rows: The rows of the table.
            stem: The table's file without its ending.
            shard: Which part of all predictions the table has.

        Returns:
            What was written.
        """
        return []
