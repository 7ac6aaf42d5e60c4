"""Label maps that do not fit their images or the classes."""

import pickle

import numpy as np
import pytest
from PIL import Image

from coc_core.errors import UserError
from coc_core.mm.data_checks.checks import check_data, inspections


def test_label_maps_are_compared_with_images_and_classes(maps, tmp_path, everything):
    Image.fromarray(np.full((30, 41), 1, np.uint8)).save(tmp_path / 'maps' / '0.png')
    Image.fromarray(np.uint8([[0, 2, 3], [7, 1, 255]]).repeat(15, 0)[:, [0, 1, 2, 2] * 10]).save(
        tmp_path / 'maps' / '1.png'
    )
    (tmp_path / 'maps' / '9.png').write_bytes((tmp_path / 'maps' / '0.png').read_bytes())
    errors, skipped = everything(maps)
    assert '0.png has 41x30 pixels, its image 40x30' in errors[0]
    assert '1.png has the labels 3, 7, which stand for no class (0 to 2, and 255 for no label)' in errors[1]
    assert len(errors) == 2 and len(skipped) == 1 and '9.png' in skipped[0]
    (tmp_path / 'maps' / '1.png').unlink()
    with pytest.raises(UserError, match=r'images/1.jpg has no label map'):
        check_data(maps, ['train'])


@pytest.mark.parametrize(
    ('labels', 'sentence'),
    [
        (np.zeros((30, 40, 3), np.uint8), '0.png has 3 channels: a label map has one, of class numbers'),
        (np.full((30, 40), 258, np.uint16), '0.png has the labels 258, which stand for no class (0 to 2, and 255'),
    ],
)
def test_maps_that_mmseg_takes_for_others_are_errors(maps, tmp_path, everything, labels, sentence):
    Image.fromarray(labels).save(tmp_path / 'maps' / '0.png')
    (error,), others = everything(maps)
    assert sentence in error and others == []


def test_values_between_classes_are_errors(maps, tmp_path, everything):
    maps.train_dataloader.dataset.seg_map_suffix = '.tif'
    for i in range(2):
        Image.fromarray(np.tile(np.float32([0, 1, 2, 1.5]), (30, 10))).save(tmp_path / 'maps' / f'{i}.tif')
    errors, _ = everything(maps)
    assert len(errors) == 2 and '0.tif has the labels 1.5, which stand for no class' in errors[0]


def test_a_palette_means_what_the_pipelines_decoder_makes_of_it(maps, tmp_path, everything):
    for i in range(2):
        colored = Image.fromarray(np.tile(np.uint8([0, 1, 2, 1]), (30, 10)))
        colored.putpalette([200, 10, 10, 10, 200, 10, 10, 10, 200])
        colored.save(tmp_path / 'maps' / f'{i}.png')
    assert everything(maps) == ([], [])
    maps.train_dataloader.dataset.pipeline[1].imdecode_backend = 'cv2'
    errors, _ = everything(maps)
    assert '0.png has 3 channels' in errors[0]


def test_a_class_in_no_map_is_an_error_of_training_data_alone(maps, tmp_path, everything):
    for i in range(2):
        Image.fromarray(np.tile(np.uint8([0, 255]), (30, 20))).save(tmp_path / 'maps' / f'{i}.png')
    (error,), _ = everything(maps)
    assert 'has no sample of 2 of the classes (cat, dog): what has none cannot be learned' in error
    (found,) = inspections(dict(maps, val_dataloader=maps.train_dataloader), ['val'], files=True)
    (warning,) = found.opened(sample() for sample in found.samples)
    assert warning.level == 'warning' and 'is not measured' in str(warning)
    # One map of all is enough.
    Image.fromarray(np.tile(np.uint8([1, 2]), (30, 20))).save(tmp_path / 'maps' / '1.png')
    assert everything(maps) == ([], [])


@pytest.mark.parametrize(
    ('changes', 'names'),
    [
        (dict(), 'nothing, cat'),
        # Zero is no label, and 2 the second class.
        (dict(reduce_zero_label=True), 'nothing, dog'),
        (dict(ignore_index=0), 'cat'),
    ],
)
def test_classes_are_numbered_as_they_are_trained(maps, tmp_path, everything, changes, names):
    maps.train_dataloader.dataset.update(changes)
    for i in range(2):
        Image.fromarray(np.full((30, 40), 2, np.uint8)).save(tmp_path / 'maps' / f'{i}.png')
    (error,), _ = everything(maps)
    assert f'classes ({names}): ' in error


def test_of_a_known_data_set_the_kept_classes_alone_must_be_there(maps, tmp_path, everything):
    # Labels 13 and 1 of ADE20K, which begins at 1.
    kept = dict(type='ADE20KDataset', metainfo=dict(classes=['person', 'wall']), reduce_zero_label=True)
    maps.train_dataloader.dataset.update(kept)
    for i in range(2):
        Image.fromarray(np.tile(np.uint8([0, 1, 2, 150]), (30, 10))).save(tmp_path / 'maps' / f'{i}.png')
    (error,), _ = everything(maps)
    assert 'has no sample of 1 of the classes (person): ' in error
    Image.fromarray(np.tile(np.uint8([13, 2]), (30, 20))).save(tmp_path / 'maps' / '0.png')
    assert everything(maps) == ([], [])


def test_maps_are_compared_with_images_as_these_are_turned(maps, tmp_path, everything, picture):
    remedy = "must be of the turned image, or LoadImageFromFile needs color_type='color_ignore_orientation'"
    picture(tmp_path / 'images' / '0.jpg', orientation=6)
    picture(tmp_path / 'images' / '1.jpg', orientation=3)
    (error,), (warning,) = everything(maps)
    assert '0.png has 40x30 pixels, its image 30x40 (the image has EXIF orientation 6, which turns it when' in error
    assert '1.jpg has EXIF orientation 3, which turns it when it is loaded: its label map ' + remedy in warning
    maps.train_dataloader.dataset.pipeline[0].color_type = 'color_ignore_orientation'
    assert everything(maps) == ([], [])


def test_samples_can_be_sent_to_other_processes(maps):
    (found,) = inspections(maps, ['train'], files=True)
    opened = [pickle.loads(pickle.dumps(sample))() for sample in found.samples]
    assert opened == [sample() for sample in found.samples] == [([], frozenset({0, 1, 2, 255}))] * 2


def test_classes_that_a_data_set_does_not_know(maps):
    maps.train_dataloader.dataset.type = 'ADE20KDataset'
    with pytest.raises(UserError, match=r"ADE20KDataset knows no class 'nothing'.*BaseSegDataset"):
        check_data(maps, ['train'])


def test_an_empty_line_and_an_image_that_is_measured_twice_are_told(maps, tmp_path):
    (tmp_path / 'list.txt').write_text('0\n1\n0\n\n')
    maps.train_dataloader.dataset.ann_file = 'list.txt'
    maps.val_dataloader = maps.train_dataloader
    (train,), (val,) = (inspections(maps, [phase], files=False) for phase in ('train', 'val'))
    empty = ('error', f'{tmp_path}/list.txt, line 4, is empty: remove it.')
    assert [(problem.level, str(problem)) for problem in train.problems] == [empty]
    (first, second) = [(problem.level, str(problem)) for problem in val.problems]
    assert first == empty and second[0] == 'warning' and 'lists 1 images more than once, first 0' in second[1]


def test_a_training_without_a_folder_of_maps_is_an_error(maps):
    del maps.train_dataloader.dataset.data_prefix['seg_map_path']
    with pytest.raises(UserError, match='has no folder of label maps, which its pipeline loads'):
        check_data(maps, ['train'])
