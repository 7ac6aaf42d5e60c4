"""Single image files: what can be said of them cheaply, and what decoding them says."""

import numpy as np
import pytest
from PIL import Image

from coc_core.mm.data_checks.images import absent_files, is_torn, read_pixels
from coc_core.mm.data_checks.problems import Problem

PIXELS = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)


@pytest.mark.parametrize('ending', ['jpg', 'png'])
def test_a_torn_file_is_known_by_its_end(tmp_path, ending):
    path = tmp_path / f'a.{ending}'
    Image.fromarray(PIXELS).save(path)
    whole = path.read_bytes()
    assert not is_torn(str(path))
    # A camera's own data behind the image's end.
    path.write_bytes(whole + b'a note' * 1000)
    assert not is_torn(str(path))
    path.write_bytes(whole[:-20])
    assert is_torn(str(path))


def test_of_other_files_nothing_is_said(tmp_path):
    Image.fromarray(PIXELS).save(tmp_path / 'a.bmp')
    (tmp_path / 'a.bmp').write_bytes((tmp_path / 'a.bmp').read_bytes()[:-20])
    (tmp_path / 'empty.jpg').touch()
    for name in ('a.bmp', 'empty.jpg', 'nowhere.jpg'):
        assert not is_torn(str(tmp_path / name))


def test_pixels_are_decoded_as_they_are_stored(tmp_path):
    deep = np.arange(6, dtype=np.uint16).reshape(2, 3) * 10000
    for name, pixels in (('a.png', PIXELS), ('gray.png', PIXELS[..., 0]), ('deep.png', deep)):
        Image.fromarray(pixels).save(tmp_path / name)
        assert np.array_equal(read_pixels(tmp_path / name), pixels)


@pytest.mark.parametrize(
    ('name', 'sentence'),
    [('nowhere.png', 'nowhere.png does not exist.'), ('torn.png', 'torn.png cannot be read as an image (')],
)
def test_what_cannot_be_decoded_is_a_problem(tmp_path, name, sentence):
    Image.fromarray(PIXELS).save(tmp_path / 'a.png')
    (tmp_path / 'torn.png').write_bytes((tmp_path / 'a.png').read_bytes()[:1000])
    problem = read_pixels(tmp_path / name)
    assert isinstance(problem, Problem) and problem.level == 'error' and sentence in str(problem)


def test_absent_files_keep_their_order(tmp_path):
    (tmp_path / 'here').mkdir()
    (tmp_path / 'here' / 'a.png').touch()
    asked = [tmp_path / 'here' / 'b.png', tmp_path / 'here' / 'a.png', tmp_path / 'gone' / 'a.png']
    assert absent_files(asked) == [asked[0], asked[2]]
