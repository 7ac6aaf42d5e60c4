"""Single image files: torn, extended, turned, and of kinds that training cannot read."""

import io

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mmcv.transforms import LoadImageFromFile
from PIL import Image

from coc_core.errors import UserError
from coc_core.mm.data_checks.checked_pipeline import CheckedPipeline
from coc_core.mm.data_checks.images import absent_files, orientation, read_pixels
from coc_core.mm.data_checks.problems import Problem
from coc_core.mm.loading import ImageLoader, LabelMapLoader
from coc_core.visualization.decoding import is_torn

PIXELS = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
LOADER = ImageLoader(LoadImageFromFile())
KINDS = {
    'jpg': {}, 'progressive.jpg': dict(progressive=True), 'restarts.jpg': dict(restart_marker_blocks=2), 'png': {},
    'webp': {}, 'lossless.webp': dict(lossless=True), 'bmp': {}, 'gif': {}, 'tif': {}, 'jp2': {}, 'avif': {},
    'lzw.tif': dict(compression='tiff_lzw'), 'deflate.tif': dict(compression='tiff_adobe_deflate'),
}  # fmt: skip


def encoded(name, **options):
    content = io.BytesIO()
    Image.fromarray(PIXELS).save(content, Image.registered_extensions()[f'.{name.split(".")[-1]}'], **options)
    return content.getvalue()


WHOLE = {name: encoded(name, **options) for name, options in KINDS.items()}


def trains(path):
    """Whether training takes an image; where not, it stops with a sentence that names the file."""
    try:
        CheckedPipeline([LoadImageFromFile()], None, 0, 1)(dict(img_path=str(path), sample_idx=0))
    except UserError as error:
        told = str(error)
    else:
        return True
    assert f'{path} cannot be ' in told and 'check_data.py lists every such file' in told
    return False


@pytest.mark.parametrize('name', WHOLE)
def test_a_file_that_ends_early_is_refused_wherever_it_ends(tmp_path, name):
    path, whole = tmp_path / name, WHOLE[name]
    path.write_bytes(whole)
    assert read_pixels(path, LOADER).shape == (30, 40, 3) and trains(path)
    for size in (*range(0, len(whole), len(whole) // 40), *range(len(whole) - 12, len(whole))):
        path.write_bytes(whole[:size])
        assert isinstance(read_pixels(path, LOADER), Problem), size
        assert not trains(path), size


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(sorted(WHOLE)), st.floats(0, 1), st.binary(max_size=300), st.integers(0, 300_000))
def test_the_check_and_training_agree_on_any_file(tmp_path, name, kept, more, zeros):
    path, whole = tmp_path / name, WHOLE[name]
    size = round(kept * len(whole))
    path.write_bytes(whole[:size] + more + bytes(zeros))
    pixels = read_pixels(path, LOADER)
    assert isinstance(pixels, Problem) != trains(path)
    if size == len(whole):
        path.write_bytes(whole)
        assert np.array_equal(pixels, read_pixels(path, LOADER))


def test_what_stands_behind_an_image_is_nobodys_business(tmp_path):
    """Motion photos have a film there."""
    for name, whole in WHOLE.items():
        (tmp_path / name).write_bytes(whole)
        expected = read_pixels(tmp_path / name, LOADER)
        (tmp_path / name).write_bytes(whole + b'a film' * 50_000)
        assert np.array_equal(read_pixels(tmp_path / name, LOADER), expected) and trains(tmp_path / name)


def test_the_end_of_a_thumbnail_is_not_the_end_of_its_image(tmp_path):
    exif = b'Exif\0\0' + WHOLE['jpg']
    whole = encoded('jpg', exif=exif)
    path = tmp_path / 'photo.jpg'
    path.write_bytes(whole)
    assert not is_torn(path) and trains(path)
    path.write_bytes(whole[: whole.index(WHOLE['jpg']) + len(WHOLE['jpg']) + 700])
    assert is_torn(path) and not trains(path)


def test_a_jpeg_whose_rest_is_zeros_is_torn_although_opencv_decodes_it(tmp_path):
    path = tmp_path / 'photo.jpg'
    path.write_bytes(WHOLE['jpg'][:1000] + bytes(100_000))
    assert LOADER(path).shape == (30, 40, 3)
    assert 'photo.jpg cannot be read as an image (it is truncated)' in str(read_pixels(path, LOADER))
    assert not trains(path)


def test_of_other_files_no_end_is_asked(tmp_path):
    for name, content in (('a.bmp', WHOLE['bmp'][:-20]), ('a.png', WHOLE['png'][:-20]), ('empty.jpg', b'')):
        (tmp_path / name).write_bytes(content)
    for name in ('a.bmp', 'a.png', 'empty.jpg', 'nowhere.jpg'):
        assert not is_torn(tmp_path / name)


@pytest.mark.parametrize(
    ('name', 'content', 'sentence'),
    [
        ('nowhere.png', None, 'nowhere.png does not exist.'),
        ('torn.png', WHOLE['png'][:1000], 'torn.png cannot be read as an image (image file is truncated'),
        ('text.png', b'no image', 'text.png cannot be read as an image (cannot identify'),
        ('real.tif', np.float32, 'real.tif cannot be decoded (TIFF with pixels of mode F): save it anew, with 8 bits'),
        ('whole.tif', np.int32, 'whole.tif cannot be decoded (TIFF with pixels of mode I): save it anew, with 8 bits'),
    ],
)
def test_what_cannot_be_decoded_is_a_problem(tmp_path, name, content, sentence):
    if isinstance(content, bytes):
        (tmp_path / name).write_bytes(content)
    elif content is not None:
        Image.fromarray(PIXELS[..., 0].astype(content)).save(tmp_path / name)
        assert not trains(tmp_path / name)
    problem = read_pixels(tmp_path / name, LOADER)
    assert isinstance(problem, Problem) and problem.level == 'error' and sentence in str(problem)


def test_a_loader_that_fails_for_another_reason_keeps_its_trace(tmp_path):
    (tmp_path / 'a.png').write_bytes(WHOLE['png'])
    with pytest.raises(AttributeError):
        # PyTurboJPEG is not installed.
        read_pixels(tmp_path / 'a.png', ImageLoader(LoadImageFromFile(imdecode_backend='turbojpeg')))


def test_label_maps_are_decoded_as_they_are_stored(tmp_path):
    deep = np.arange(6, dtype=np.uint16).reshape(2, 3) * 10000
    for name, pixels in (('a.png', PIXELS), ('gray.png', PIXELS[..., 0]), ('deep.png', deep)):
        Image.fromarray(pixels).save(tmp_path / name)
        assert np.array_equal(read_pixels(tmp_path / name, LabelMapLoader()), pixels)


@pytest.mark.parametrize('ending', ['jpg', 'png', 'webp', 'tif', 'avif'])
@pytest.mark.parametrize('turned', range(1, 9))
def test_an_orientation_is_named_where_mmcv_turns_the_image(tmp_path, ending, turned):
    """Pixels say whether it did: a corner that is bright and no other."""
    pixels = np.zeros((32, 48, 3), np.uint8)
    pixels[:8, :8] = 255
    exif = Image.Exif()
    exif[0x0112] = turned
    path = tmp_path / f'photo.{ending}'
    Image.fromarray(pixels).save(path, **(dict(tiffinfo={274: turned}) if ending == 'tif' else dict(exif=exif)))
    loaded = LOADER(path)[..., 0] > 127
    same = loaded.shape == (32, 48) and loaded[:8, :8].mean() > 0.9
    # 5 mirrors at the diagonal, which leaves the corner; the sides say it.
    assert (orientation(path, LOADER) == 1) == same
    assert orientation(path, LOADER) in (1, turned)
    assert orientation(path, ImageLoader(LoadImageFromFile(color_type='color_ignore_orientation'))) == 1


def test_absent_files_keep_their_order(tmp_path):
    (tmp_path / 'here').mkdir()
    (tmp_path / 'here' / 'a.png').touch()
    asked = [tmp_path / 'here' / 'b.png', tmp_path / 'here' / 'a.png', tmp_path / 'gone' / 'a.png']
    assert absent_files(asked) == [asked[0], asked[2]]
