"""A picture and a label map mean the same to the project's own reading, to mmcv and to mmseg."""

import mmcv
import numpy as np
import pytest
from mmcv.transforms import BaseTransform, LoadImageFromFile
from mmengine.registry import TRANSFORMS, init_default_scope
from mmseg.datasets.transforms import LoadAnnotations
from PIL import Image

from coc_core.errors import UserError
from coc_core.mm.loading import ImageLoader, LabelMapLoader, image_loader, label_map_loader
from coc_core.visualization.files import read_image

RANDOM = np.random.default_rng(0)
GRAY = RANDOM.integers(0, 256, (6, 10), dtype=np.uint8)
COLORS = RANDOM.integers(0, 256, (6, 10, 3), dtype=np.uint8)
FOUR = RANDOM.integers(0, 256, (6, 10, 4), dtype=np.uint8)
# No channel and no turn of it is like another.
KINDS = {
    'colors.png': Image.fromarray(COLORS),
    'colors.jpg': Image.fromarray(COLORS),
    'colors.tif': Image.fromarray(COLORS),
    'colors.webp': Image.fromarray(COLORS),
    'colors.gif': Image.fromarray(COLORS).quantize(16),
    'gray.jpg': Image.fromarray(GRAY),
    'deep.png': Image.fromarray(GRAY.astype(np.uint16) * 257),
    'deep.tif': Image.fromarray(GRAY.astype(np.uint16) * 257),
    'bits.png': Image.fromarray(GRAY > 127),
    'palette.png': Image.fromarray(COLORS).quantize(16),
    'alpha.png': Image.fromarray(FOUR),
    'inks.jpg': Image.fromarray(FOUR, 'CMYK'),
    'inks.tif': Image.fromarray(FOUR, 'CMYK'),
}


def turned(orientation):
    """What stored COLORS look like, by the definition of EXIF: 1 as they are, 6 turned to the right by a quarter."""
    return {
        1: COLORS, 2: COLORS[:, ::-1], 3: COLORS[::-1, ::-1], 4: COLORS[::-1],
        5: COLORS.transpose(1, 0, 2), 6: np.rot90(COLORS, -1), 7: COLORS[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(COLORS),
    }[orientation]  # fmt: skip


def save_turned(path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(COLORS).save(path, exif=exif, **(dict(lossless=True) if path.suffix == '.webp' else {}))


@pytest.mark.parametrize('name', KINDS)
def test_a_picture_is_what_mmcv_loads(tmp_path, name):
    path = tmp_path / name
    KINDS[name].save(path)
    expected = mmcv.imread(str(path))
    assert expected.shape == (6, 10, 3) and expected.dtype == np.uint8
    assert np.array_equal(read_image(path), expected[..., ::-1])
    assert np.array_equal(ImageLoader()(path), expected)
    assert np.array_equal(ImageLoader(LoadImageFromFile())(path), expected)
    if name.startswith('deep'):
        # Pillow's conversion makes nearly all of it white.
        assert np.array_equal(read_image(path), np.repeat(GRAY[..., None], 3, axis=2))


@pytest.mark.parametrize('ending', ['png', 'webp', 'jpg'])
@pytest.mark.parametrize('orientation', range(1, 9))
def test_a_picture_is_turned_as_mmcv_turns_it(tmp_path, ending, orientation):
    path = tmp_path / f'photo.{ending}'
    save_turned(path, orientation)
    found = read_image(path)
    assert np.array_equal(found, LoadImageFromFile()({'img_path': str(path)})['img'][..., ::-1])
    if ending != 'jpg':
        assert np.array_equal(found, turned(orientation))


@pytest.mark.parametrize(
    ('settings', 'turns'),
    [
        ({}, True),
        (dict(imdecode_backend='pillow'), True),
        (dict(color_type='grayscale'), True),
        (dict(color_type='unchanged'), False),
        (dict(color_type='color_ignore_orientation'), False),
        (dict(color_type='color_ignore_orientation', imdecode_backend='pillow'), False),
    ],
)
def test_what_turns_a_picture_is_known(tmp_path, settings, turns):
    save_turned(tmp_path / 'photo.png', 6)
    loader = image_loader([dict(type='LoadImageFromFile', **settings)], 'mmdet')
    assert loader.turns == turns and ImageLoader().turns
    assert loader(tmp_path / 'photo.png').shape[:2] == ((10, 6) if turns else (6, 10))


def test_pixels_that_8_bits_cannot_show_are_told(tmp_path):
    KINDS['deep.png'].save(tmp_path / 'deep.png')
    KINDS['alpha.png'].save(tmp_path / 'alpha.png')
    KINDS['colors.png'].save(tmp_path / 'colors.png')
    stored = ImageLoader(LoadImageFromFile(color_type='unchanged'))
    for name, what in (('deep.png', r'uint16 of shape \[6, 10\]'), ('alpha.png', r'uint8 of shape \[6, 10, 4\]')):
        with pytest.raises(UserError, match=f"{name} is loaded as {what}.*set color_type='color'"):
            read_image(tmp_path / name, load=stored)
    for settings in (dict(to_float32=True), dict(color_type='unchanged')):
        assert np.array_equal(
            read_image(tmp_path / 'colors.png', load=ImageLoader(LoadImageFromFile(**settings))), COLORS
        )
    gray = read_image(tmp_path / 'colors.png', load=ImageLoader(LoadImageFromFile(color_type='grayscale')))
    assert np.array_equal(gray, np.repeat(gray[..., :1], 3, axis=2)) and gray.std() > 10


class Renamed(LoadImageFromFile):
    """A user's loader, in negative."""

    def transform(self, results):
        results = super().transform(results)
        results['img'] = 255 - results['img']
        return results


class LoadScene(BaseTransform):
    """A user's transform that reads image and map at once."""

    def transform(self, results):
        return dict(results, img=np.zeros((1, 1, 3)), gt_seg_map=Image.open(results['seg_map_path']))


def test_the_pipelines_own_loader_reads_images(tmp_path):
    KINDS['colors.png'].save(tmp_path / 'colors.png')
    loader = image_loader([dict(type='Resize', scale=4), dict(type=Renamed)], 'mmseg')
    assert np.array_equal(loader(tmp_path / 'colors.png'), 255 - COLORS[..., ::-1])
    for pipeline in (None, [], [LoadScene()], [dict(type=LoadScene)], [dict(type='LoadNothing')]):
        assert image_loader(pipeline, 'mmseg') == ImageLoader()
    with pytest.raises(UserError, match='pipeline cannot be built: .*colour_type'):
        image_loader([dict(type='LoadImageFromFile', colour_type='color')], 'mmseg')


@pytest.mark.parametrize('backend', ['pillow', 'cv2'])
@pytest.mark.parametrize('name', ['gray.png', 'deep.png', 'palette.png', 'bits.png', 'colors.png'])
def test_a_label_map_is_what_mmseg_loads(tmp_path, backend, name):
    path = tmp_path / name
    KINDS.get(name, Image.fromarray(GRAY)).save(path)
    init_default_scope('mmseg')
    mmseg = TRANSFORMS.build(dict(type='LoadAnnotations', imdecode_backend=backend))
    assert type(mmseg) is LoadAnnotations
    loaded = mmseg(dict(seg_map_path=str(path), reduce_zero_label=False, seg_fields=[]))['gt_seg_map']
    loader = label_map_loader([dict(type='LoadAnnotations', imdecode_backend=backend)], 'mmseg')
    assert np.array_equal(loader(path).astype(np.uint8), loaded)
    if backend == 'pillow':
        assert np.array_equal(LabelMapLoader()(path), loader(path)[..., ::-1] if name == 'colors.png' else loader(path))
    if name == 'deep.png':
        assert loader(path).dtype == np.uint16 and np.array_equal(loader(path), GRAY.astype(np.uint16) * 257)
    # OpenCV makes colors of a palette, which no training takes for labels.
    assert loader(path).ndim == (3 if name == 'colors.png' or (name, backend) == ('palette.png', 'cv2') else 2)
