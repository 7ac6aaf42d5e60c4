"""Files of every kind that people have, and what is said of those that cannot be used."""

import contextlib
import io
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from coc_core.errors import UserError
from coc_core.visualization.files import (
    IMAGE_SUFFIXES,
    frame_rate,
    is_film,
    list_images,
    read_frames,
    read_image,
    read_labels,
    write_film,
    write_image,
)


def noise(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def sample(ending):
    """A small file of a kind, or None where neither Pillow nor OpenCV writes it."""
    kind = Image.registered_extensions().get(ending)
    content = io.BytesIO()
    try:
        Image.fromarray(noise(12, 16, 3)).save(content, kind)
    except (KeyError, ValueError, OSError):
        try:
            return cv2.imencode(ending, noise(12, 16, 3))[1].tobytes()
        except cv2.error:
            return None
    return content.getvalue()


def test_the_files_that_are_listed_are_those_that_can_be_read(tmp_path):
    readable = set()
    for ending in Image.registered_extensions():
        content = sample(ending)
        path = tmp_path / f'picture{ending}'
        if content is not None:
            path.write_bytes(content)
            with contextlib.suppress(UserError):
                readable |= {ending} if read_image(path).shape == (12, 16, 3) else set()
    # Real ones hold fractions, which are no colors.
    assert readable - {'.pfm'} == set(IMAGE_SUFFIXES)


def test_unusable_images_are_told_in_words(tmp_path):
    whole = tmp_path / 'whole.png'
    write_image(whole, noise(50, 60, 3))
    (tmp_path / 'torn.png').write_bytes(whole.read_bytes()[:3000])
    Image.fromarray(noise(50, 60, 3)).save(tmp_path / 'torn.jpg')
    # A copy that was broken off in a file that had its size already: Pillow and OpenCV make a picture of it.
    (tmp_path / 'torn.jpg').write_bytes((tmp_path / 'torn.jpg').read_bytes()[:2000] + bytes(99_000))
    Image.fromarray(noise(5, 6).astype(np.float32)).save(tmp_path / 'real.tif')
    (tmp_path / 'text.png').write_text('no image')
    (tmp_path / 'empty.png').write_bytes(b'')
    # A header that claims 60,000 x 60,000 pixels in a few bytes.
    bomb = bytearray(whole.read_bytes())
    bomb[16:24] = (60000).to_bytes(4, 'big') * 2
    bomb[29:33] = zlib.crc32(bytes(bomb[12:29])).to_bytes(4, 'big')
    (tmp_path / 'bomb.png').write_bytes(bomb)
    for name, sentence in {
        'torn.png': 'cannot be read as an image (image file is truncated',
        'torn.jpg': 'cannot be read as an image (it is truncated): replace or remove it.',
        'real.tif': 'cannot be decoded (TIFF with pixels of mode F): save it anew, with 8 bits a channel.',
        'text.png': 'is not an image that can be read: give a PNG or JPEG file.',
        'empty.png': 'is not an image that can be read',
        'bomb.png': 'has too many pixels to be opened safely: make it smaller.',
        'absent.png': 'does not exist.',
    }.items():
        with pytest.raises(ValueError) as error:
            read_image(tmp_path / name)
        assert sentence in str(error.value) and str(tmp_path / name) in str(error.value)
    with pytest.raises(UserError, match='has 60x50 pixels, more than 0.002 million: make it smaller'):
        read_image(whole, max_pixels=2000)
    with pytest.raises(UserError, match='is a folder'):
        read_image(tmp_path)


def test_labels_have_one_channel(tmp_path):
    Image.fromarray(noise(4, 6)).save(tmp_path / 'labels.png')
    assert np.array_equal(read_labels(tmp_path / 'labels.png'), noise(4, 6))
    write_image(tmp_path / 'rgb.png', noise(4, 6, 3))
    with pytest.raises(UserError, match=r'rgb.png has 3 channels: it must have one'):
        read_labels(tmp_path / 'rgb.png')


def test_a_folder_is_listed_with_its_subfolders(tmp_path):
    for name in ('b.png', 'a/z.JPG', 'a/notes.txt', 'a/._z.JPG', '.cache/b.png', 'out/b_clusters.png'):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert list_images(tmp_path, leave_out=tmp_path / 'out') == [tmp_path / 'a' / 'z.JPG', tmp_path / 'b.png']
    # What is written around the folder, or into itself, hides nothing in it.
    for out in (None, tmp_path, tmp_path / 'out'):
        assert list_images(tmp_path / 'out', leave_out=out) == [tmp_path / 'out' / 'b_clusters.png']
    (tmp_path / 'none').mkdir()
    with pytest.raises(UserError, match='none holds no images'):
        list_images(tmp_path / 'none')


@pytest.mark.parametrize('kind', ['gif', 'mp4'])
def test_a_film_is_read_as_it_was_written(tmp_path, kind):
    frames = [np.full((33, 48, 3), 40 * i, np.uint8) for i in range(6)]
    path = tmp_path / f'film.{kind}'
    write_film(path, frames, rate=5)
    found = list(read_frames(path))
    assert len(found) == 6 and frame_rate(path) == pytest.approx(5)
    assert [round(float(frame.mean()) / 40) for frame in found] == list(range(6))
    if kind == 'gif':
        assert found[0].shape == (33, 48, 3)


def test_a_gif_of_one_frame_is_an_image(tmp_path):
    write_film(tmp_path / 'film.gif', [noise(8, 8, 3), noise(8, 8, 3) // 2], rate=10)
    Image.new('P', (9, 5)).save(tmp_path / 'still.gif')
    (tmp_path / 'film.MP4').touch()
    assert [is_film(tmp_path / name) for name in ('film.gif', 'film.MP4', 'still.gif', 'photo.jpg')] == [1, 1, 0, 0]
    assert read_image(tmp_path / 'still.gif').shape == (5, 9, 3)


def test_a_gif_shows_its_last_frame_longer(tmp_path):
    write_film(tmp_path / 'film.gif', [noise(8, 8, 3), noise(8, 8, 3) // 2], rate=10, hold=1.0)
    with Image.open(tmp_path / 'film.gif') as film:
        film.seek(1)
        assert film.info['duration'] == 1100


def test_films_that_cannot_be_used_are_told(tmp_path):
    (tmp_path / 'broken.mp4').write_bytes(b'no video')
    for name, sentence in (('broken.mp4', 'cannot be read'), ('absent.mp4', 'does not exist'), ('x.gif', 'not exist')):
        with pytest.raises(UserError, match=sentence):
            next(read_frames(tmp_path / name))
    (tmp_path / 'broken.gif').write_bytes(b'GIF89a')
    for name, sentence in (('broken.gif', 'can be read|is damaged'), ('x.gif', 'does not exist')):
        with pytest.raises(UserError, match=sentence):
            frame_rate(tmp_path / name)
    for name in ('film.gif', 'film.mp4'):
        with pytest.raises(UserError, match='no frames'):
            write_film(tmp_path / name, [], rate=5)
        assert not (tmp_path / name).exists()
