"""What the explorer's page asks: one or two models' clusters on a picture, and those of a point in it."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coc_core.errors import UserError
from coc_core.files import project_folder
from coc_core.mm.explorer.viewer import ClusterViewer, View
from coc_core.variants import VARIANTS
from coc_core.visualization.painting import enlarge, highlight, overlay, similarity_map
from coc_core.visualization.recorder import LayerClusters

CHECKPOINT_SUFFIXES = ('.pth', '.safetensors')
# All that a config has which a training leaves beside its checkpoints: values, and calls of dict.
_VALUES = (
    ast.Module, ast.Assign, ast.Name, ast.Call, ast.keyword, ast.Constant, ast.List, ast.Tuple, ast.Dict, ast.UnaryOp,
    ast.USub, ast.expr_context,
)  # fmt: skip
_SHORTEST_SIDE = 420
_GAP = 8


@dataclass(frozen=True)
class Request:
    """What the page shows.

    Attributes:
        image: The picture's file.
        size: Shorter side that the network sees, 0 for what the model's own test pipeline makes.
        models: Pairs of a model's name and a checkpoint, the second for the comparison.
        stage: Stage; too large numbers mean the last one, as the models may differ.
        block: Block in the stage, likewise.
        head: Head, likewise.
        opacity: Strength of the colors, 0 to 1.
        point: Where in the picture the user clicked, as fractions of its height and width, or None.
    """

    image: Path
    size: int
    models: tuple[tuple[str, str], ...]
    stage: int
    block: int
    head: int
    opacity: float
    point: tuple[float, float] | None = None


@dataclass(frozen=True)
class Picture:
    """One model's answer.

    Attributes:
        overlay: The clusters of the chosen head, uint8 [H, W, 3].
        detail: The clicked point's cluster beside its similarity map, uint8 [H, W', 3], or None without a click.
        caption: What is seen, in words.
    """

    overlay: NDArray[Any]
    detail: NDArray[Any] | None
    caption: str


@dataclass(frozen=True)
class Answer:
    """Everything that the page shows.

    Attributes:
        pictures: One for each model.
        depths: Number of blocks of each stage of the first model.
        heads: Heads of the shown layer of the first model.
        stage: The stage that is shown of the first model.
        block: The block.
        head: The head.
    """

    pictures: list[Picture]
    depths: list[int] = field(default_factory=list)
    heads: int = 1
    stage: int = 0
    block: int = 0
    head: int = 0


class ClusterExplorer:
    """Keeps the last models and pictures, so that moving a slider only paints."""

    def __init__(self) -> None:
        self._viewer = lru_cache(maxsize=4)(_load)
        # The similarities of a large picture take hundreds of megabytes.
        self._view = lru_cache(maxsize=2)(self._look)

    def answer(self, request: Request) -> Answer:
        """Look at a picture as the page asks.

        Raises:
            UserError: The picture, a model or a checkpoint cannot be used; the sentence is for the user.
        """
        pictures, first = [], None
        for model, checkpoint in request.models:
            try:
                image = (request.image, request.image.stat().st_mtime_ns if request.image.is_file() else 0)
                weights = (checkpoint, Path(checkpoint).stat().st_mtime_ns if Path(checkpoint).is_file() else 0)
                view = self._view(image, request.size, model, weights)
                layer, head = _layer_of(view, request)
            except UserError as error:
                # The page's files lie in folders that mean nothing to its user.
                raise UserError(str(error).replace(str(request.image), request.image.name)) from error
            first = first or (view, layer, head)
            pictures.append(_paint(view, layer, head, request))
        if first is None:
            raise UserError('Pick a model and a checkpoint.')
        view, layer, head = first
        stages = [other.stage for other in view.layers]
        depths = [stages.count(stage) for stage in dict.fromkeys(stages)]
        return Answer(pictures, depths, layer.heads, layer.stage, layer.block, head)

    def _look(self, image: tuple[Path, int], size: int, model: str, weights: tuple[str, int]) -> View:
        viewer = self._viewer(model, weights)
        picture = viewer.read(image[0])
        factor = size / min(picture.shape[:2])
        seen = (max(1, round(picture.shape[0] * factor)), max(1, round(picture.shape[1] * factor))) if size else None
        return viewer.look(picture, size=seen, similarities=True)


def _load(model: str, weights: tuple[str, int]) -> ClusterViewer:
    make = ClusterViewer.from_name if model in VARIANTS else ClusterViewer.from_config
    return make(str(known_models().get(model, model)), weights[0])


def _layer_of(view: View, request: Request) -> tuple[LayerClusters, int]:
    """Return the layer and the head nearest to what is asked for."""
    stage = min(request.stage, view.layers[-1].stage)
    blocks = [layer for layer in view.layers if layer.stage == stage]
    layer = blocks[min(request.block, len(blocks) - 1)]
    return layer, min(request.head, layer.heads - 1)


def _paint(view: View, layer: LayerClusters, head: int, request: Request) -> Picture:
    image = enlarge(view.image, _SHORTEST_SIDE)
    caption = f'{view.image.shape[0]}x{view.image.shape[1]} pixels seen; {layer.name}, head {head}: '
    caption += f'{layer.region_grid**2} regions of {layer.centers} centers'
    if layer.alpha is not None and layer.beta is not None:
        caption += f'; alpha {layer.alpha:.2f}, beta {layer.beta:.2f}'
    if view.prediction:
        caption = f'predicted: **{view.prediction}**; {caption}'
    detail = None
    if request.point is not None:
        row, col = (
            min(int(fraction * pixels) // layer.stride, points - 1)
            for fraction, pixels, points in zip(
                request.point, layer.image_size, layer.assignment.shape[:2], strict=True
            )
        )
        cluster = int(layer.clusters(head)[row, col])
        similarity = layer.similarity_to(cluster, head)
        members = int((layer.clusters(head) == cluster).sum())
        gap = np.full((image.shape[0], _GAP, 3), 255, np.uint8)
        shown = (highlight(image, layer, head, cluster), gap, similarity_map(image, layer, similarity))
        detail = np.concatenate(shown, axis=1)
        caption += (
            f'. The point in row {row}, column {col} is one of {members} points of center {cluster % layer.centers} '
            f'in region {cluster // layer.centers}; its {layer.scale} with the center is {similarity[row, col]:.3f}'
        )
    return Picture(overlay(image, layer, head, alpha=request.opacity), detail, f'{caption}.')


def side_by_side(answer: Answer) -> NDArray[Any]:
    """Return all pictures of an answer as one, uint8 [H, W, 3]: models beside, details below one another."""
    columns = [
        _stacked([part for part in (picture.overlay, picture.detail) if part is not None], axis=0)
        for picture in answer.pictures
    ]
    return _stacked(columns, axis=1)


def _stacked(images: Sequence[NDArray[Any]], axis: int) -> NDArray[Any]:
    """Join images below (axis 0) or beside (1) one another, on white where they differ in length."""
    other = 1 - axis
    longest = max(image.shape[other] for image in images)
    parts: list[NDArray[Any]] = []
    for image in images:
        margin = [(0, 0), (0, 0), (0, 0)]
        margin[other] = (0, longest - image.shape[other])
        margin[axis] = (_GAP if parts else 0, 0)
        parts.append(np.pad(image, margin, constant_values=255))
    return np.concatenate(parts, axis=axis)


def known_models() -> dict[str, Path]:
    """Return what can be picked as a model: the project's configs of image tasks by their names, and the variants."""
    folder = project_folder() / 'configs'
    tasks = ('classification', 'detection', 'segmentation')
    configs = {path.stem: path for task in tasks for path in sorted((folder / task).glob('*.py'))}
    return {**configs, **{name: Path(name) for name in VARIANTS}}


def find_checkpoints(places: Sequence[Path]) -> list[str]:
    """Return the checkpoint files that are named or lie in folders.

    Raises:
        UserError: A place does not exist, or there is no checkpoint in any.
    """
    found: list[str] = []
    for place in places:
        if not place.exists():
            raise UserError(f'--checkpoints {place} does not exist.')
        inside = sorted(path for path in place.rglob('*') if path.suffix in CHECKPOINT_SUFFIXES)
        found += [str(path) for path in ([place] if place.is_file() else inside)]
    if not found:
        places_named = ', '.join(map(str, places))
        raise UserError(
            f'--checkpoints {places_named}: there is no checkpoint ({", ".join(CHECKPOINT_SUFFIXES)}): train one with '
            '`make demo`, or name a file or another folder.'
        )
    return found


def model_of(checkpoint: str) -> str | None:
    """Return the config that trained a checkpoint, as mmengine leaves its copy beside it, or None."""
    return next(iter(configs_beside([checkpoint])), None)


def configs_beside(checkpoints: Sequence[str]) -> list[str]:
    """Return the configs that trainings left in the folders of checkpoints.

    To read a config is to run it, and the folder may be a stranger's: a file that is more than values is passed over.
    """
    folders = dict.fromkeys(Path(checkpoint).parent for checkpoint in checkpoints)
    found = (path for folder in folders for path in sorted(folder.glob('*.py')))
    return [str(path) for path in found if _holds_a_model(path.read_text(encoding='utf-8', errors='replace'))]


def _holds_a_model(text: str) -> bool:
    try:
        nodes = list(ast.walk(ast.parse(text)))
    except (SyntaxError, ValueError):
        return False
    calls = (ast.unparse(node.func) for node in nodes if isinstance(node, ast.Call))
    assigned = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    values = all(isinstance(node, _VALUES) for node in nodes) and all(name == 'dict' for name in calls)
    return values and 'model' in assigned and '_base_' not in assigned
