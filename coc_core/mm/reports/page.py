"""One HTML file that needs no other: tables, a confusion matrix, pictures with what is said of them."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray
from PIL import Image

# Of more classes, neither names nor numbers can be read in a matrix.
_NAMED_CLASSES = 40
_COUNTED_CLASSES = 15
# Longer ones would take the matrix its room.
_LONGEST_NAME = 32
_STYLE = """
body { font: 15px/1.4 sans-serif; color: #1e1e1e; max-width: 1100px; margin: 24px auto; padding: 0 16px;
  overflow-wrap: anywhere; }
table { border-collapse: collapse; } th, td { padding: 3px 14px 3px 0; text-align: left; overflow-wrap: normal; }
th { border-bottom: 1px solid #999; }
.scroll { max-width: 100%; max-height: 480px; overflow: auto; display: inline-block; }
.cases { display: flex; flex-wrap: wrap; gap: 14px; } figure { margin: 0; max-width: 100%; }
figcaption { font-size: 13px; max-width: 300px; } img { max-width: 100%; }
"""


@dataclass(frozen=True)
class Case:
    """A sample that went wrong.

    Attributes:
        lines: What is said of it.
        picture: A PNG or JPEG file; None where there is nothing to show.
    """

    lines: tuple[str, ...]
    picture: bytes | None = None


@dataclass(frozen=True)
class Page:
    """What a report says.

    Attributes:
        title: The heading.
        summary: Lines below it.
        header: The columns of the table of classes.
        rows: Its rows, as they are to be read.
        matrix: The picture of the confusion matrix, PNG; None where the task has none.
        cases_title: What the cases are.
        cases: The samples that went wrong, the worst first.
        colors: The color of each row's class in the pictures, RGB; empty where they show none.
    """

    title: str
    summary: Sequence[str]
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    matrix: bytes | None
    cases_title: str
    cases: Sequence[Case]
    colors: Sequence[Sequence[int]] = ()


def to_html(page: Page) -> str:
    """Write a page as HTML, pictures embedded."""
    root = ElementTree.Element('html', {'lang': 'en'})
    head = _add(root, 'head')
    _add(head, 'meta', charset='utf-8')
    # Without it a phone lays the page out for a desk and shows it small.
    _add(head, 'meta', name='viewport', content='width=device-width')
    _add(head, 'title', page.title)
    _add(head, 'style', _STYLE)
    body = _add(root, 'body')
    _add(body, 'h1', page.title)
    for line in page.summary:
        _add(body, 'p', line)
    _add(body, 'h2', 'Classes')
    table = _add(_add(body, 'div', **{'class': 'scroll'}), 'table')
    _add_row(table, 'th', page.header)
    for cells, color in zip_longest(page.rows, page.colors):
        row = _add_row(table, 'td', cells)
        if color is not None:
            row[0].set('style', f'border-left: 16px solid rgb{tuple(map(int, color))}; padding-left: 8px')
    if page.matrix is not None:
        _add(body, 'h2', 'Confusion matrix')
        _add_picture(body, page.matrix, 'confusion matrix')
    _add(body, 'h2', page.cases_title)
    cases = _add(body, 'div', **{'class': 'cases'})
    for case in page.cases:
        figure = _add(cases, 'figure')
        if case.picture is not None:
            _add_picture(figure, case.picture, case.lines[0])
        caption = _add(figure, 'figcaption')
        for text in case.lines:
            _add(caption, 'div', text)
    if not page.cases:
        _add(body, 'p', 'None.')
    return '<!DOCTYPE html>\n' + ElementTree.tostring(root, encoding='unicode', method='html')


def _add(parent: ElementTree.Element, tag: str, text: str = '', **attributes: str) -> ElementTree.Element:
    child = ElementTree.SubElement(parent, tag, attributes)
    child.text = text
    return child


def _add_row(table: ElementTree.Element, kind: str, cells: Sequence[str]) -> ElementTree.Element:
    row = _add(table, 'tr')
    for cell in cells:
        _add(row, kind, cell)
    return row


def _add_picture(parent: ElementTree.Element, picture: bytes, alt: str) -> None:
    kind = 'png' if picture.startswith(b'\x89PNG') else 'jpeg'
    _add(parent, 'img', src=f'data:image/{kind};base64,{base64.b64encode(picture).decode()}', alt=alt)


def thumbnail(image: NDArray[Any], longest: int, shortest: int = 96) -> bytes:
    """Encode an image, uint8 [H, W, 3], RGB, in the size that `fitted` gives it, as a JPEG file."""
    return encoded(fitted(image, longest, shortest))


def fitted(image: NDArray[Any], longest: int, shortest: int = 96) -> Image.Image:
    """Return an image in the size that a page shows.

    Args:
        image: The image, uint8 [H, W, 3], RGB.
        longest: Pixels that its longer side has at most.
        shortest: Pixels to which its longer side is enlarged where it has fewer.
    """
    side = max(image.shape[:2])
    factor = min(max(side, shortest), longest) / side
    size = [max(1, round(pixels * factor)) for pixels in (image.shape[1], image.shape[0])]
    return Image.fromarray(image).resize((size[0], size[1]))


def encoded(picture: Image.Image) -> bytes:
    """Return a picture as a JPEG file."""
    stream = io.BytesIO()
    picture.save(stream, 'JPEG', quality=85)
    return stream.getvalue()


def matrix_picture(counts: NDArray[Any], classes: Sequence[str]) -> bytes:
    """Draw a confusion matrix, the shares of each row, as a PNG file.

    Args:
        counts: How often a class (row) was taken for another (column), [classes, classes].
        classes: Their names.
    """
    # What trains has no use for them, and they take a second to import.
    from matplotlib.figure import Figure
    from sklearn.metrics import ConfusionMatrixDisplay

    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = min(10.0, 3 + 0.35 * len(classes))
    figure = Figure(figsize=(side + 1, side))
    axes: Any = figure.add_subplot()
    names = [name if len(name) <= _LONGEST_NAME else f'{name[: _LONGEST_NAME - 1]}…' for name in classes]
    display = ConfusionMatrixDisplay(shares, display_labels=names)
    # In most places are zeros, which need no number.
    counted = len(classes) <= _COUNTED_CLASSES
    display.plot(ax=axes, include_values=counted, cmap='cividis', values_format='.2f', xticks_rotation=90)
    display.im_.set_clim(0, 1)
    axes.set(xlabel='predicted', ylabel='true')
    if len(classes) > _NAMED_CLASSES:
        axes.set(xticks=[], yticks=[])
    for text in (*axes.get_xticklabels(), *axes.get_yticklabels()):
        # A name with two dollar signs is no formula.
        text.set_parse_math(False)
    stream = io.BytesIO()
    figure.savefig(stream, format='png', dpi=80, bbox_inches='tight')
    return stream.getvalue()
