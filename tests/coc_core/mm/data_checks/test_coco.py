"""COCO annotation files that do not fit their images, the classes or themselves."""

import json
import pickle

import pytest
from mmdet.registry import DATASETS
from mmengine.registry import init_default_scope

from coc_core.errors import UserError
from coc_core.mm.data_checks.checks import check_data, inspections


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
        (
            lambda content: content['categories'].reverse(),
            r"orders its categories dog, cat, metainfo cat, dog.* reorder this file's list categories",
        ),
        (change('categories', 1, name=' Dog'), r"has no category 'dog', which it writes ' Dog' \(1 of the 2 classes"),
        (
            lambda content: content['categories'].append(dict(id=30, name='cat')),
            r"has 2 categories 'cat' \(ids 10, 30\), and mmdet makes a label of each",
        ),
        (
            change('images', 1, file_name='a\\2.jpg'),
            r'a\\2.jpg does not exist, although .* lists it \(paths have / where it writes \\\)',
        ),
        (change('images', 1, file_name='/nowhere/2.jpg'), '^/nowhere/2.jpg does not exist, although .* lists it'),
        (change('images', 1, file_name='a' * 300 + '/2.jpg'), 'images cannot be listed .*too long'),
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


def test_two_categories_of_a_name_that_is_no_class_are_left_out(coco, content, everything):
    content['categories'] += [dict(id=30, name='cow'), dict(id=40, name='cow')]
    errors, skipped = everything(coco(content))
    assert errors == [] and len(skipped) == 1
    assert skipped[0].endswith('has 0 annotations of 2 categories that metainfo does not list (cow, cow).')


def test_a_file_listed_under_two_ids_is_told(coco, content, everything):
    content['images'][1]['file_name'] = './1.jpg'
    errors, (warning,) = everything(coco(content))
    assert errors == [] and 'lists 1 files more than once, first ' in warning and '/images/1.jpg: what one' in warning


def test_absolute_paths_are_taken_as_they_are(coco, content, everything, picture, tmp_path):
    content['images'][1]['file_name'] = str(picture(tmp_path / 'elsewhere' / '2.jpg'))
    assert everything(coco(content)) == ([], [])
    picture(tmp_path / 'elsewhere' / '2.jpg', width=41)
    assert '2.jpg has 41x30 pixels, its annotations are for 40x30' in everything(coco(content))[0][0]


def test_files_are_opened_to_their_end(coco, tmp_path, content, everything, picture):
    cfg = coco(content)
    whole = (tmp_path / 'images' / '1.jpg').read_bytes()
    (tmp_path / 'images' / '1.jpg').write_bytes(whole[: len(whole) // 2])
    picture(tmp_path / 'images' / '2.jpg', width=41)
    errors, _ = everything(cfg)
    assert len(errors) == 2
    assert '1.jpg cannot be read as an image' in errors[0] and 'runcated' in errors[0]
    assert '2.jpg has 41x30 pixels, its annotations are for 40x30' in errors[1]


@pytest.mark.parametrize('orientation', range(1, 9))
def test_annotations_are_of_the_image_as_mmdet_loads_it(coco, tmp_path, content, everything, picture, orientation):
    picture(tmp_path / 'images' / '1.jpg', orientation=orientation)
    cfg = coco(content)
    errors, others = everything(cfg)
    init_default_scope('mmdet')
    loaded = DATASETS.build(cfg.train_dataloader.dataset)[0]['data_samples']
    assert bool(errors) == (loaded.ori_shape != (30, 40)) == (orientation > 4)
    note = (
        f'EXIF orientation {orientation}, which turns it when it is loaded: its annotations must be of the turned image'
    )
    if orientation > 4:
        assert '1.jpg has 30x40 pixels, its annotations are for 40x30 (the image has ' + note in errors[0]
        content['images'][0].update(width=30, height=40)
        assert everything(coco(content)) == ([], [])
    else:
        assert others == [] if orientation == 1 else f'1.jpg has {note}' in others[0]


def test_a_square_image_does_not_show_that_it_is_turned(coco, tmp_path, content, everything, picture):
    picture(tmp_path / 'images' / '1.jpg', 40, 40, orientation=6)
    content['images'][0]['height'] = 40
    cfg = coco(content)
    assert '1.jpg has EXIF orientation 6' in everything(cfg)[1][0]
    cfg.train_dataloader.dataset.pipeline[0].color_type = 'color_ignore_orientation'
    assert everything(cfg) == ([], [])


def test_samples_can_be_sent_to_other_processes(coco, tmp_path, content):
    (tmp_path / 'images' / '2.jpg').write_bytes(b'no image')
    (found,) = inspections(coco(content), ['train'], files=True)
    opened = [pickle.loads(pickle.dumps(sample))() for sample in found.samples]
    assert opened == [sample() for sample in found.samples] and [len(o.problems) for o in opened] == [0, 1]
