"""Label maps that do not fit their images or the classes."""

import numpy as np
import pytest
from PIL import Image

from coc_core.errors import UserError
from coc_core.mm.data_checks.checks import check_data


def test_label_maps_are_compared_with_images_and_classes(maps, tmp_path, everything):
    Image.fromarray(np.full((30, 41), 1, np.uint8)).save(tmp_path / 'maps' / '0.png')
    Image.fromarray(np.uint8([[0, 3], [7, 255]]).repeat(15, 0).repeat(20, 1)).save(tmp_path / 'maps' / '1.png')
    (tmp_path / 'maps' / '9.png').write_bytes((tmp_path / 'maps' / '0.png').read_bytes())
    errors, skipped = everything(maps)
    assert '0.png has 41x30 pixels, its image 40x30' in errors[0]
    assert '1.png has the labels 3, 7, which stand for no class (0 to 2, and 255 for no label)' in errors[1]
    assert len(errors) == 2 and len(skipped) == 1 and '9.png' in skipped[0]
    (tmp_path / 'maps' / '1.png').unlink()
    with pytest.raises(UserError, match=r'images/1.jpg has no label map'):
        check_data(maps, ['train'])


def test_classes_that_a_data_set_does_not_know(maps):
    maps.train_dataloader.dataset.type = 'ADE20KDataset'
    with pytest.raises(UserError, match=r"ADE20KDataset knows no class 'nothing'.*BaseSegDataset"):
        check_data(maps, ['train'])
