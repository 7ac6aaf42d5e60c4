"""COCO annotation files that do not fit their images, the classes or themselves."""

import json

import pytest

from coc_core.errors import UserError
from coc_core.mm.data_checks.checks import check_data


def remove(key):
    return lambda content: content.pop(key)


def change(key, index, **entries):
    return lambda content: content[key][index].update(entries)


@pytest.mark.parametrize(
    ('damage', 'sentence'),
    [
        (
            change('images', 1, file_name='gone.jpg'),
            r'images/gone.jpg does not exist, although .*instances.json lists it',
        ),
        (lambda content: content['annotations'].clear(), 'instances.json has an empty list of annotations'),
        (remove('categories'), 'instances.json is not in COCO format: it has no list categories'),
        (change('categories', 1, name='cow'), r"has no category 'dog' \(1 of the 2 classes .* categories cat, cow\)"),
        (lambda content: content['categories'].reverse(), 'orders its categories dog, cat, metainfo cat, dog'),
        (change('annotations', 0, image_id=9), 'annotation 1 belongs to the image 9, which the file does not list'),
        (change('annotations', 1, category_id=9), 'annotation 2 has the category 9, which the file does not list'),
        (change('annotations', 0, segmentation=[]), 'annotation 1 has no segmentation, but the pipeline loads masks'),
        (change('annotations', 0, bbox=[1, 2, 3]), r'annotation 1 has the box \[1, 2, 3\] instead of'),
        (change('annotations', 1, id=1), 'gives 1 annotation ids more than once, first 1'),
        (lambda content: content['images'][0].pop('height'), 'has the image 1 without height'),
    ],
)
def test_wrong_annotations_stop_before_training(coco, damage, sentence, content):
    damage(content)
    with pytest.raises(UserError, match=sentence):
        check_data(coco(content), ['train'])


def test_a_torn_annotation_file_is_named(coco, content):
    with pytest.raises(UserError, match=r'instances.json is not valid JSON \(.*line 1 column'):
        check_data(coco(json.dumps(content)[:200]), ['train'])


def test_what_mmdet_skips_is_counted_and_no_error(coco, capsys, content, everything):
    content['annotations'][2]['bbox'] = [50.0, 3.0, 10.0, 8.0]
    check_data(coco(content, classes=('cat',)), ['train'])
    assert '1 annotations of 1 categories that metainfo does not list (dog)' in capsys.readouterr().err
    errors, skipped = everything(coco(content, classes=('cat',)))
    assert errors == [] and len(skipped) == 2 and 'outside its image' in skipped[1]


def test_files_are_opened_to_their_end(coco, tmp_path, content, everything, picture):
    cfg = coco(content)
    whole = (tmp_path / 'images' / '1.jpg').read_bytes()
    (tmp_path / 'images' / '1.jpg').write_bytes(whole[: len(whole) // 2])
    picture(tmp_path / 'images' / '2.jpg', width=41)
    errors, _ = everything(cfg)
    assert len(errors) == 2
    assert '1.jpg cannot be read as an image' in errors[0] and 'runcated' in errors[0]
    assert '2.jpg has 41x30 pixels, its annotations are for 40x30' in errors[1]
