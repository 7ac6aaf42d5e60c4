"""What the explorer's page answers, without a browser."""

from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image

from coc_core import create_model
from coc_core.mm.explorer.page import NONE, Page, build_page

PICTURE = np.random.default_rng(0).integers(0, 256, (48, 64), dtype=np.uint8)


@pytest.fixture
def ask(tmp_path):
    """Ask a page for an image's clusters in one checkpoint of `coc_tiny`; its message and its download come back."""
    torch.manual_seed(0)
    torch.save(create_model('coc_tiny', num_classes=3).state_dict(), tmp_path / 'model.pth')
    page = Page(tmp_path / 'pictures')

    def ask(image):
        checkpoint = str(tmp_path / 'model.pth')
        message, *_, download = page(
            str(image), None, 32, checkpoint, 'coc_tiny', NONE, 'coc_tiny', 0, 0, 0, 0.6, None
        )  # fmt: skip
        return message, download

    return ask


@pytest.mark.parametrize(
    ('stem', 'kept'), [('n' * 251, 'n' * 200), ('n' + 'ä' * 125, 'n' + 'ä' * 99), ('\udcffn', 'n')]
)
def test_an_image_may_have_any_name_that_a_file_has(tmp_path, ask, stem, kept):
    path = tmp_path / f'{stem}.png'
    Image.fromarray(PICTURE).save(path)
    message, download = ask(path)
    assert message.startswith('predicted: ') and '32x43 pixels seen' in message
    (written,) = (tmp_path / 'pictures').iterdir()
    assert written.name in str(download.value)
    assert written.name == f'{kept}_stage0_block0_head0.png'


def test_a_model_may_be_a_config_of_ones_own(tmp_path):
    base = Path(__file__).parents[4] / 'configs' / 'classification' / 'coc-tiny_1xb32-12e_digits.py'
    config, checkpoint, image = (str(tmp_path / name) for name in ('mine.py', 'model.pth', 'gray.png'))
    cfg = Config.fromfile(base)
    cfg.merge_from_dict({'model.backbone.center_grid': 3})
    # As mmengine does for each training.
    cfg.dump(config)
    torch.save(create_model('coc_tiny', num_classes=10).state_dict(), checkpoint)
    Image.fromarray(PICTURE).save(image)
    # Found beside the checkpoint, and named by its file.
    for model in (None, config):
        page = build_page([checkpoint], [image], model, tmp_path)
        models = [part for part in page.blocks.values() if getattr(part, 'label', '') in ('Model', 'Its model')]
        assert [part.value for part in models] == [config] * 2
    message, *_ = Page(tmp_path)(image, None, 32, checkpoint, config, NONE, config, 0, 0, 0, 0.6, None)
    assert 'regions of 9 centers' in message


def test_16_bits_look_like_the_8_that_a_model_is_trained_on(tmp_path, ask):
    Image.fromarray(PICTURE).save(tmp_path / 'gray.png')
    Image.fromarray(PICTURE.astype(np.uint16) * 257).save(tmp_path / 'deep.png')
    assert ask(tmp_path / 'gray.png')[0] == ask(tmp_path / 'deep.png')[0]


def test_a_picture_that_cannot_be_read_is_named_without_its_folder(tmp_path, ask):
    Image.fromarray(PICTURE).save(tmp_path / 'torn.png')
    (tmp_path / 'torn.png').write_bytes((tmp_path / 'torn.png').read_bytes()[:900])
    message, _ = ask(tmp_path / 'torn.png')
    assert 'The image torn.png cannot be read as an image (image file is truncated' in message and '/' not in message


def test_a_picture_that_cannot_be_written_is_told_on_the_page(tmp_path, ask):
    (tmp_path / 'pictures').touch()
    Image.fromarray(PICTURE).save(tmp_path / 'gray.png')
    message, _ = ask(tmp_path / 'gray.png')
    assert message.startswith('**') and 'gray_stage0_block0_head0.png cannot be written' in message
