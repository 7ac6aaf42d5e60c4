"""The page of a report: one file, everything escaped and embedded."""

import base64
import io
import re

import numpy as np
from PIL import Image

from coc_core.mm.reports.page import Case, Page, matrix_picture, thumbnail, to_html


def page(**entries):
    given = dict(
        title='a', summary=['b'], header=['class'], rows=[['cat']], matrix=None, cases_title='Mistakes', cases=[]
    )
    return Page(**{**given, **entries})


def pictures(html):
    found = re.findall(r'src="data:image/(png|jpeg);base64,([^"]+)"', html)
    return [Image.open(io.BytesIO(base64.b64decode(content))) for _, content in found]


def test_texts_are_escaped_and_pictures_embedded():
    image = np.full((30, 60, 3), (250, 10, 10), np.uint8)
    case = Case(('<script> & "cat"', 'a/b.png'), thumbnail(image, 160))
    html = to_html(page(title='<i>', cases=[case, Case(('no picture',))]))
    assert html.startswith('<!DOCTYPE html>\n<html') and '<script>' not in html and '<h1>&lt;i&gt;</h1>' in html
    (picture,) = pictures(html)
    assert picture.size == (96, 48) and np.asarray(picture)[20, 40].argmax() == 0
    assert 'http' not in html and '<td>cat</td>' in html and 'no picture' in html
    assert '<p>None.</p>' in to_html(page())


def test_large_images_are_made_small():
    assert Image.open(io.BytesIO(thumbnail(np.zeros((1000, 500, 3), np.uint8), 160))).size == (80, 160)


def test_a_matrix_shows_shares_of_rows_for_any_number_of_classes():
    for count in (2, 20, 60):
        picture = Image.open(io.BytesIO(matrix_picture(np.eye(count, dtype=np.int64), [f'c{i}' for i in range(count)])))
        assert min(picture.size) > 250 and np.asarray(picture).std() > 20
    # A row without samples divides nothing.
    assert matrix_picture(np.array([[3, 1], [0, 0]]), ['a', 'b']).startswith(b'\x89PNG')
