"""Frames and pictures are what the pipeline's own step would have loaded."""

import numpy as np
import pytest
from mmcv.transforms import LoadImageFromFile
from PIL import Image

from coc_core.errors import UserError
from coc_core.mm.prediction.image_files import ImageFiles
from coc_core.mm.prediction.inputs import Item


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)


@pytest.mark.parametrize('settings', [{}, {'color_type': 'grayscale'}, {'to_float32': True}], ids=str)
def test_a_frame_is_loaded_as_its_file(pixels, tmp_path, settings):
    step = LoadImageFromFile(**settings)
    path = tmp_path / 'frame.png'
    Image.fromarray(pixels).save(path)
    files = ImageFiles([step])
    expected = step({'img_path': str(path)})
    found = files.start(Item('/film.mp4', 3, pixels))
    assert found['img'].dtype == expected['img'].dtype and np.array_equal(found['img'], expected['img'])
    assert files.columns(found) == files.columns(expected) == {'height': 6, 'width': 9}
    shown = files.shown(Item(str(path)))
    assert shown.dtype == np.uint8 and shown.shape == (6, 9, 3)
    assert settings.get('color_type') or np.array_equal(shown, pixels)


def test_sixteen_bits_are_shown(tmp_path):
    path = tmp_path / 'deep.png'
    Image.fromarray(np.full((4, 4), 0x8123, np.uint16)).save(path)
    files = ImageFiles([LoadImageFromFile(color_type='unchanged')])
    assert (files.shown(Item(str(path))) == 0x81).all()


def test_a_pipeline_that_reads_in_its_own_way_takes_no_frames(pixels):
    with pytest.raises(
        UserError, match=r"/film.mp4, sample 3, is no file of its own, and the config's pipeline has no"
    ):
        ImageFiles([]).start(Item('/film.mp4', 3, pixels))
