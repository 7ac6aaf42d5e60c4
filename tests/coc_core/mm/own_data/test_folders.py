import pytest

from coc_core.errors import UserError
from coc_core.mm.own_data.folders import files_with, phase_folders, phase_of


@pytest.mark.parametrize(
    ('name', 'phase'),
    [
        ('instances_val2017', 'val'), ('Training', 'train'), ('_annotations.coco', None), ('valid', 'val'),
        ('my-test', 'test'), ('trainer', None), ('constraint', None),
    ],
)  # fmt: skip
def test_phases_are_words_of_a_name(name, phase):
    assert phase_of(name) == phase


def test_a_folder_of_images_alone_is_a_class_whatever_its_name(tmp_path):
    for name in ('train', 'bus', 'VAL/cat', '.hidden'):
        (tmp_path / name).mkdir(parents=True)
    assert phase_folders(tmp_path) == {'val': tmp_path / 'VAL'}
    (tmp_path / 'validation' / 'cat').mkdir(parents=True)
    with pytest.raises(UserError, match='has VAL and validation, both for val'):
        phase_folders(tmp_path)


@pytest.mark.parametrize('folders', [('training_set/cat', 'test_set/cat'), ('train', 'test')])
def test_folders_that_all_say_a_phase_are_no_classes(tmp_path, folders):
    for name in folders:
        (tmp_path / name).mkdir(parents=True)
    names = ' and '.join(sorted(name.removesuffix('/cat') for name in folders))
    with pytest.raises(UserError, match=f'has {names}, which say train, val or test and are no classes: call them'):
        phase_folders(tmp_path)


def test_a_validation_folder_of_images_alone_beside_training_folders_is_a_mistake(tmp_path):
    for name in ('train/cat', 'val', 'test'):
        (tmp_path / name).mkdir(parents=True)
    with pytest.raises(UserError, match=f'{tmp_path}/val has no folders in it, unlike {tmp_path}/train'):
        phase_folders(tmp_path)


def test_files_are_found_by_their_suffix_in_any_case_and_hidden_ones_are_not(tmp_path):
    for name in ('b.JPG', 'deep er/ä.jpg', '.c.jpg', 'd.txt', '__MACOSX/e.jpg'):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert files_with(tmp_path, {'.jpg'}) == ['b.JPG', 'deep er/ä.jpg']
