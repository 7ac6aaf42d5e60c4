"""Paints clusters and similarities over an image, pixel by pixel."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from coc_core.errors import UserError
from coc_core.visualization.recorder import LayerClusters

# Okabe and Ito's colors without black. The first four are those that people with a weak red, green or blue cone tell
# apart best, because most models have four centers in a region.
_HUES = ((0, 114, 178), (240, 228, 66), (213, 94, 0), (86, 180, 233), (0, 158, 115), (204, 121, 167), (230, 159, 0))
# Later rounds of the hues are mixed with white or black by these parts.
_SHADES = (0.0, 0.55, -0.5, 0.3, -0.25, 0.75, -0.7, 0.15, -0.1)
_REGION_LINE = (255, 255, 255)
# Brightness that is left on the border of a cluster, and outside of a highlighted one.
_BORDER = 0.4
_OUTSIDE = 0.35


def palette(count: int) -> NDArray[Any]:
    """Return colors for the centers of a region, uint8 [count, 3]; the first ones are the same for every count.

    Raises:
        UserError: ``count`` is not positive.
    """
    if count < 1:
        raise UserError(f'palette({count}): there must be at least one color.')
    colors = []
    for i in range(count):
        turn, hue = divmod(i, len(_HUES))
        shade = _SHADES[turn % len(_SHADES)]
        target = 255 if shade > 0 else 0
        colors.append([round(c + (target - c) * abs(shade)) for c in _HUES[hue]])
    return np.array(colors, dtype=np.uint8)


def enlarge(image: NDArray[Any], at_least: int) -> NDArray[Any]:
    """Enlarge an image by a whole factor so that its shorter side has ``at_least`` pixels: uint8 [H, W, 3]."""
    height, width = image.shape[:2]
    factor = enlargement(image, at_least)
    if factor == 1:
        return image
    return resize(image, (height * factor, width * factor))


def resize(image: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """Resize an image to (height, width), bicubic: uint8 [height, width, 3]."""
    return np.asarray(Image.fromarray(image).resize((size[1], size[0]), Image.Resampling.BICUBIC))


def enlargement(image: NDArray[Any], at_least: int) -> int:
    """Return the smallest whole factor by which an image's shorter side gets ``at_least`` pixels."""
    return max(1, -(-at_least // int(min(image.shape[:2]))))


def pixel_values(cells: NDArray[Any], clusters: LayerClusters, size: tuple[int, int]) -> NDArray[Any]:
    """Give each pixel of a picture the value of the point that it lies in.

    Args:
        cells: One value per point, [h, w].
        clusters: The layer that the points are of.
        size: Height and width of the picture, which shows all that the network saw, enlarged or not.

    Returns:
        [height, width], dtype as ``cells``.
    """
    rows, cols = (
        ((np.arange(pixels) + 0.5) * seen / pixels).astype(np.int64) // clusters.stride
        for pixels, seen in zip(size, clusters.image_size, strict=True)
    )
    found: NDArray[Any] = cells[rows[:, None], cols]
    return found


def edges(cells: NDArray[Any], thickness: int = 1) -> NDArray[Any]:
    """Mark pixels beside which the value changes: bool [H, W], ``thickness`` pixels before each border."""
    marked = np.zeros(cells.shape, dtype=bool)
    marked[:-1] |= cells[:-1] != cells[1:]
    marked[:, :-1] |= cells[:, :-1] != cells[:, 1:]
    for _ in range(thickness - 1):
        grown = marked.copy()
        grown[:-1] |= marked[1:]
        grown[:, :-1] |= marked[:, 1:]
        marked = grown
    return marked


def overlay(
    image: NDArray[Any], clusters: LayerClusters, head: int, *, alpha: float = 0.6, borders: bool = True
) -> NDArray[Any]:
    """Paint the clusters of one head over an image.

    A color stands for a center's place in its region, so that it means the same in every region, image and step;
    which region it is of the white region borders tell. Dark lines border clusters.

    Args:
        image: What the network saw, without padding, at any scale: uint8 [H, W, 3], RGB.
        clusters: A layer's clusters on that image.
        head: The head.
        alpha: Strength of the colors, from 0 to 1.
        borders: Draw the borders of clusters and regions.

    Returns:
        uint8 [H, W, 3].

    Raises:
        UserError: There is no such head, or ``alpha`` is not between 0 and 1.
    """
    check_alpha(alpha)
    size = (image.shape[0], image.shape[1])
    ids = pixel_values(clusters.clusters(head), clusters, size)
    colors = palette(clusters.centers)[ids % clusters.centers].astype(np.float32)
    painted = image * (1 - alpha) + colors * alpha
    if borders:
        painted[edges(ids)] *= _BORDER
        painted[edges(ids // clusters.centers, line_width(size))] = _REGION_LINE
    return _as_image(painted)


def highlight(image: NDArray[Any], clusters: LayerClusters, head: int, cluster: int) -> NDArray[Any]:
    """Darken everything of an image but one cluster, and frame that in its color: uint8 [H, W, 3].

    Args:
        image: As in `overlay`.
        clusters: As in `overlay`.
        head: The head.
        cluster: A number out of `LayerClusters.clusters`.
    """
    size = (image.shape[0], image.shape[1])
    inside = pixel_values(clusters.clusters(head) == cluster, clusters, size)
    painted = np.where(inside[..., None], image, image * _OUTSIDE)
    painted[edges(inside, line_width(size) + 1)] = palette(clusters.centers)[cluster % clusters.centers]
    return _as_image(painted)


def similarity_map(image: NDArray[Any], clusters: LayerClusters, similarity: NDArray[Any]) -> NDArray[Any]:
    """Paint similarities over an image from dark blue to yellow; points without one stay dark: uint8 [H, W, 3].

    Args:
        image: As in `overlay`.
        clusters: As in `overlay`. Cosines are painted from -1 to 1, others from the smallest to the largest.
        similarity: One number per point, NaN for none, [h, w].
    """
    # Training paints clusters too, and does without the second that this takes.
    import matplotlib

    size = (image.shape[0], image.shape[1])
    values = pixel_values(similarity, clusters, size)
    low, high = (-1.0, 1.0) if clusters.scale == 'cosine' else (np.nanmin(similarity), np.nanmax(similarity))
    # The color map with even lightness for every kind of sight.
    shares = np.nan_to_num((values - low) / max(high - low, 1e-12))
    colors = matplotlib.colormaps['cividis'](shares)[..., :3] * 255
    painted = np.where(np.isnan(values)[..., None], image * _OUTSIDE, 0.25 * image + 0.75 * colors)
    return _as_image(painted)


def _as_image(painted: NDArray[Any]) -> NDArray[Any]:
    rounded: NDArray[Any] = painted.round().astype(np.uint8)
    return rounded


def line_width(size: tuple[int, int]) -> int:
    """Return the width of a region's border in a picture of this size, in pixels."""
    return max(1, round(min(size) / 256))


def check_alpha(alpha: float) -> None:
    """Raise ValueError unless ``alpha`` is between 0 and 1."""
    if not 0 <= alpha <= 1:
        raise UserError(f'alpha {alpha} must be between 0 (the image alone) and 1 (the colors alone).')
