"""The page of a report: one file, everything escaped and embedded."""

import base64
import io
import re
import warnings

import numpy as np
import pytest
from browsers import open_browser
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


def test_a_name_of_any_kind_leaves_the_matrix_its_room():
    plain = Image.open(io.BytesIO(matrix_picture(np.eye(2, dtype=np.int64), ['a', 'b'])))
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        content = matrix_picture(np.eye(2, dtype=np.int64), ['$\\foo{$', 'a name that goes on ' * 9])
    picture = Image.open(io.BytesIO(content))
    yellow = [np.all(np.asarray(image.convert('RGB')) == (253, 231, 55), axis=2).sum() for image in (plain, picture)]
    assert yellow[0] > 1000 and yellow[1] == pytest.approx(yellow[0], rel=0.1)
    assert 1.2 * plain.width < picture.width < 2 * plain.width


def test_rows_have_the_colors_of_the_pictures():
    html = to_html(page(rows=[['cat'], ['dog']], colors=[np.array([1, 2, 3]), (250, 0, 0)]))
    assert re.findall(r'<td style="border-left: 16px solid (rgb.*?);[^"]*">(\w+)<', html) == [
        ('rgb(1, 2, 3)', 'cat'), ('rgb(250, 0, 0)', 'dog'),
    ]  # fmt: skip


def test_nothing_is_wider_than_a_phone(tmp_path):
    word = 'one_word_without_a_gap_' * 3
    image = thumbnail(np.zeros((50, 900, 3), np.uint8), 900)
    matrix = matrix_picture(np.eye(20, dtype=np.int64), [f'class {i}' for i in range(20)])
    case = Case((word, f'/data/{word}/ä #1 & 50%.jpg'), image)
    content = page(title=word, summary=[word], rows=[[word] * 4], header=['class'] * 4, matrix=matrix, cases=[case])
    (tmp_path / 'report.html').write_text(to_html(content))
    with open_browser(tmp_path / 'profile', viewport={'width': 390, 'height': 800}, is_mobile=True) as browser:
        shown = browser.new_page()
        shown.goto((tmp_path / 'report.html').as_uri())
        assert shown.evaluate('document.documentElement.scrollWidth') == 390
        assert (
            shown.evaluate('[...document.images].map(image => image.complete && image.naturalWidth > 0)') == [True] * 2
        )
        # The table is scrolled in its own place.
        assert shown.evaluate('document.querySelector("table").getBoundingClientRect().width') > 390
        assert shown.locator('figcaption').inner_text().splitlines()[-1] == f'/data/{word}/ä #1 & 50%.jpg'
