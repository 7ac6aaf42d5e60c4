"""Sheets of pictures: every layer in a row, every head in a column, as pixels or as SVG."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from coc_core.visualization.painting import check_alpha, enlargement, line_width, overlay, palette, resize
from coc_core.visualization.recorder import LayerClusters

_MARGIN = 12
_GAP = 6
_TEXT = 15
_LABEL_WIDTH = 118
_INK = (30, 30, 30)
_PAPER = (255, 255, 255)


@dataclass(frozen=True)
class Panel:
    """One picture of a sheet.

    Attributes:
        left: Its place on the sheet, in pixels.
        top: Likewise.
        size: Height and width in pixels.
        image: Place of the image in the sheet's list.
        clusters: The layer painted over it, or None for the image alone.
        head: The head.
    """

    left: int
    top: int
    size: tuple[int, int]
    image: int
    clusters: LayerClusters | None
    head: int = 0


@dataclass(frozen=True)
class Text:
    """A line of writing on a sheet; ``left`` and ``top`` are its upper left corner, in pixels."""

    left: int
    top: int
    content: str
    size: int = _TEXT


@dataclass(frozen=True)
class Sheet:
    """Where everything of a sheet lies.

    Attributes:
        width: In pixels.
        height: In pixels.
        images: What the network saw, and activations over it, each uint8 [H, W, 3], RGB.
        alpha: Strength of the clusters' colors.
        panels: The pictures.
        texts: The writing.
    """

    width: int
    height: int
    images: tuple[NDArray[Any], ...]
    alpha: float
    panels: tuple[Panel, ...]
    texts: tuple[Text, ...]


def single_panel(
    image: NDArray[Any],
    clusters: LayerClusters,
    head: int,
    *,
    alpha: float = 0.6,
    at_least: int = 1,
    activation: NDArray[Any] | None = None,
) -> Sheet:
    """Return a sheet that is one overlay and nothing else, enlarged as `coc_core.visualization.painting.enlarge` does.

    Args:
        image: What the network saw, uint8 [H, W, 3], RGB.
        clusters: A layer's clusters on it.
        head: The head.
        alpha: Strength of the colors, from 0 to 1.
        at_least: Pixels of the shorter side.
        activation: A picture of the same size that stands to the right, such as Grad-CAM's.

    Raises:
        UserError: ``alpha`` is not between 0 and 1.
    """
    check_alpha(alpha)
    factor = enlargement(image, at_least)
    size = (image.shape[0] * factor, image.shape[1] * factor)
    panel = Panel(0, 0, size, 0, clusters, head)
    if activation is None:
        return Sheet(size[1], size[0], (image,), alpha, (panel,), ())
    left = size[1] + _GAP
    panels = (panel, Panel(left, 0, size, 1, None))
    return Sheet(left + size[1], size[0], (image, activation), alpha, panels, ())


def contact_sheet(
    images: Sequence[NDArray[Any]],
    layers: Sequence[Sequence[LayerClusters]],
    *,
    title: str = '',
    alpha: float = 0.6,
    panel_height: int = 112,
    activations: Sequence[NDArray[Any]] = (),
) -> Sheet:
    """Lay out a row for each layer, and in it a panel for each head; of several images a row each, below one another.

    Args:
        images: What the network saw, each uint8 [H, W, 3], RGB, of any size.
        layers: The clusters of each image, the same layers of each.
        title: A line above.
        alpha: Strength of the colors, from 0 to 1.
        panel_height: Height of a panel in pixels.
        activations: A picture beside each image above the layers, such as Grad-CAM's.

    Raises:
        UserError: ``alpha`` is not between 0 and 1.
    """
    check_alpha(alpha)
    sizes = [(panel_height, max(1, round(panel_height * image.shape[1] / image.shape[0]))) for image in images]
    widest = max(width for _, width in sizes)
    heads = max(layer.heads for layer in layers[0])
    columns = [_MARGIN + _LABEL_WIDTH + i * (widest + _GAP) for i in range(heads + 1)]
    texts = [Text(_MARGIN, _MARGIN, title, _TEXT + 3)] if title else []
    top = _MARGIN + (2 * _TEXT if title else 0)
    panels = []
    for i in range(len(activations)):
        texts.append(Text(_MARGIN, top, 'Grad-CAM'))
        panels.append(Panel(columns[0], top, sizes[i], i, None))
        panels.append(Panel(columns[1], top, sizes[i], len(images) + i, None))
        top += panel_height + _GAP
    texts += [Text(columns[0], top, 'image'), *(Text(columns[i + 1], top, f'head {i}') for i in range(heads))]
    top += _TEXT + _GAP
    for _, stage in groupby(zip(*layers, strict=True), key=lambda row: row[0].stage):
        for row in stage:
            texts += [Text(_MARGIN, top + i * (_TEXT + 3), line) for i, line in enumerate(_described(row[0]))]
            for i, clusters in enumerate(row):
                panels.append(Panel(columns[0], top, sizes[i], i, None))
                panels += [Panel(columns[h + 1], top, sizes[i], i, clusters, h) for h in range(clusters.heads)]
                top += panel_height + _GAP
        top += _GAP
    width, height = columns[-1] + widest + _MARGIN, top - 2 * _GAP + _MARGIN
    return Sheet(width, height, (*images, *activations), alpha, tuple(panels), tuple(texts))


def _described(layer: LayerClusters) -> list[str]:
    regions = f'{layer.region_grid}x{layer.region_grid} regions' if layer.region_grid > 1 else 'one region'
    return [f'stage {layer.stage}', f'block {layer.block}', regions, f'of {layer.centers} centers']


def paint(sheet: Sheet) -> NDArray[Any]:
    """Paint a sheet: uint8 [H, W, 3], RGB."""
    page = Image.new('RGB', (sheet.width, sheet.height), _PAPER)
    small = {(panel.image, panel.size): resize(sheet.images[panel.image], panel.size) for panel in sheet.panels}
    for panel in sheet.panels:
        picture = small[panel.image, panel.size]
        if panel.clusters is not None:
            picture = overlay(picture, panel.clusters, panel.head, alpha=sheet.alpha)
        page.paste(Image.fromarray(picture), (panel.left, panel.top))
    draw = ImageDraw.Draw(page)
    for text in sheet.texts:
        draw.text((text.left, text.top), text.content, fill=_INK, font=_font(text.size))
    return np.asarray(page)


def to_svg(sheet: Sheet) -> str:
    """Write a sheet as SVG: images embedded once, clusters and borders as paths that stay sharp at any size."""
    root = ElementTree.Element(
        'svg',
        {
            'xmlns': 'http://www.w3.org/2000/svg',
            'width': str(sheet.width),
            'height': str(sheet.height),
            'viewBox': f'0 0 {sheet.width} {sheet.height}',
        },
    )
    ElementTree.SubElement(root, 'rect', {'width': '100%', 'height': '100%', 'fill': _hex(_PAPER)})
    definitions = ElementTree.SubElement(root, 'defs')
    for i, image in enumerate(sheet.images):
        address = f'data:image/png;base64,{base64.b64encode(png_bytes(image)).decode()}'
        size = _size(next(panel.size for panel in sheet.panels if panel.image == i))
        ElementTree.SubElement(
            definitions, 'image', {'id': f'image{i}', **size, 'href': address, 'preserveAspectRatio': 'none'}
        )
    for panel in sheet.panels:
        place = {'x': str(panel.left), 'y': str(panel.top)}
        ElementTree.SubElement(root, 'use', {'href': f'#image{panel.image}', **place})
        if panel.clusters is None:
            continue
        # In a coordinate system of its own, a unit is a pixel of the network's input.
        height, width = panel.clusters.image_size
        view = {'viewBox': f'0 0 {width} {height}', 'preserveAspectRatio': 'none'}
        _add_clusters(ElementTree.SubElement(root, 'svg', {**place, **_size(panel.size), **view}), panel, sheet.alpha)
    for text in sheet.texts:
        style = {'font-family': 'sans-serif', 'font-size': str(text.size), 'fill': _hex(_INK)}
        line = ElementTree.SubElement(root, 'text', {'x': str(text.left), 'y': str(text.top + text.size), **style})
        line.text = text.content
    return ElementTree.tostring(root, encoding='unicode')


def _size(size: tuple[int, int]) -> dict[str, str]:
    return {'width': str(size[1]), 'height': str(size[0])}


def _add_clusters(parent: ElementTree.Element, panel: Panel, alpha: float) -> None:
    clusters = panel.clusters
    assert clusters is not None
    ids = clusters.clusters(panel.head)
    colors = palette(clusters.centers)
    pixel = clusters.image_size[0] / panel.size[0]
    for center in np.unique(ids % clusters.centers):
        fill = {'fill': _hex(colors[center]), 'fill-opacity': f'{alpha:g}', 'shape-rendering': 'crispEdges'}
        path = _filled(ids % clusters.centers == center, clusters.stride)
        ElementTree.SubElement(parent, 'path', {**fill, 'd': path})
    borders = (('#222222', 0.5 * pixel, ids), (_hex(_PAPER), line_width(panel.size) * pixel, clusters.regions()))
    for color, width, cells in borders:
        line = {'fill': 'none', 'stroke': color, 'stroke-width': f'{width:.3g}', 'd': _border(cells, clusters.stride)}
        ElementTree.SubElement(parent, 'path', line)


def _filled(inside: NDArray[Any], stride: int) -> str:
    """Return the points inside as a path of one rectangle for each run in a row."""
    steps = np.diff(np.pad(inside, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    starts, ends = np.argwhere(steps == 1), np.argwhere(steps == -1)
    return ''.join(
        f'M{left * stride} {row * stride}h{(right - left) * stride}v{stride}h{-(right - left) * stride}z'
        for (row, left), (_, right) in zip(starts, ends, strict=True)
    )


def _border(cells: NDArray[Any], stride: int) -> str:
    """Return the sides between points of different value as a path of one stroke each."""
    below = np.argwhere(cells[:-1] != cells[1:])
    beside = np.argwhere(cells[:, :-1] != cells[:, 1:])
    return ''.join(
        [f'M{col * stride} {(row + 1) * stride}h{stride}' for row, col in below]
        + [f'M{(col + 1) * stride} {row * stride}v{stride}' for row, col in beside]
    )


def png_bytes(image: NDArray[Any]) -> bytes:
    """Encode an image, uint8 [H, W, 3], as a PNG file."""
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, 'PNG')
    return stream.getvalue()


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _hex(color: Sequence[int] | NDArray[Any]) -> str:
    return '#' + ''.join(f'{int(c):02x}' for c in color)
