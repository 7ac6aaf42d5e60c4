"""Files of every kind that people have, and what is said of those that cannot be used."""

import zlib

import numpy as np
import pytest
from PIL import Image

from coc_core.errors import UserError
from coc_core.visualization.files import (
    frame_rate,
    list_images,
    read_frames,
    read_image,
    read_labels,
    write_film,
    write_image,
)


def noise(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize('mode', ['L', 'P', 'RGBA', '1', 'I;16', 'CMYK'])
def test_every_mode_becomes_rgb(tmp_path, mode):
    path = tmp_path / ('image.tif' if mode == 'CMYK' else 'image.png')
    Image.new(mode, (7, 5)).save(path)
    image = read_image(path)
    assert (image.shape, image.dtype) == ((5, 7, 3), np.uint8)


def test_a_photo_is_turned_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(noise(5, 9, 3)).save(tmp_path / 'photo.jpg', exif=exif)
    assert read_image(tmp_path / 'photo.jpg').shape == (9, 5, 3)


def test_unusable_images_are_told_in_words(tmp_path):
    whole = tmp_path / 'whole.png'
    write_image(whole, noise(50, 60, 3))
    (tmp_path / 'torn.png').write_bytes(whole.read_bytes()[:3000])
    (tmp_path / 'text.png').write_text('no image')
    (tmp_path / 'empty.png').write_bytes(b'')
    # A header that claims 60,000 x 60,000 pixels in a few bytes.
    bomb = bytearray(whole.read_bytes())
    bomb[16:24] = (60000).to_bytes(4, 'big') * 2
    bomb[29:33] = zlib.crc32(bytes(bomb[12:29])).to_bytes(4, 'big')
    (tmp_path / 'bomb.png').write_bytes(bomb)
    for name, sentence in {
        'torn.png': 'is damaged',
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
    for name in ('b.png', 'a/z.JPG', 'a/notes.txt'):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert list_images(tmp_path) == [tmp_path / 'a' / 'z.JPG', tmp_path / 'b.png']
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
