"""COCO files whose lists or ids are wrong, each told in a sentence."""

import json

import pytest
from pycocotools.coco import COCO

from coc_core.errors import UserError
from coc_core.mm.data_checks.checks import check_data


@pytest.mark.parametrize('text', ['\ufeff{}', '{"images": ', '[' * 100_000, '\x00'])
def test_what_pycocotools_cannot_parse_is_no_json(coco, text, tmp_path):
    cfg = coco(text)
    with pytest.raises(UserError, match=r'instances.json is not valid JSON \('):
        check_data(cfg, ['train'])
    with pytest.raises((ValueError, RecursionError)):
        COCO(tmp_path / 'instances.json')


def test_a_file_that_cannot_be_read_is_told(coco, content, tmp_path):
    cfg = coco(content)
    (tmp_path / 'instances.json').write_bytes(json.dumps(content).encode('utf-16'))
    with pytest.raises(UserError, match=r'instances.json is not valid JSON \(.*utf-8'):
        check_data(cfg, ['train'])
    (tmp_path / 'instances.json').unlink()
    (tmp_path / 'instances.json').mkdir()
    with pytest.raises(UserError, match=r'instances.json cannot be read \('):
        check_data(cfg, ['train'])


@pytest.mark.parametrize(
    ('key', 'entry', 'sentence'),
    [
        ('annotations', None, ' has None among its annotations instead of an object.'),
        ('images', ['1.jpg'], " has ['1.jpg'] among its images instead of an object."),
        ('categories', 'cow', " has 'cow' among its categories instead of an object."),
        ('annotations', {}, ' has one of its annotations without id.'),
        ('annotations', dict(id=[1]), ' has the annotation id [1]: write a whole number of 64 bits.'),
        ('annotations', dict(id=None), ' has the annotation id None: write a whole number of 64 bits.'),
        ('annotations', dict(id=True), ' has the annotation id True: write a whole number of 64 bits.'),
        ('images', dict(id=3, file_name='3.jpg', width=40), ' has the image 3 without height.'),
        (
            'images',
            dict(id=2**70, file_name='1.jpg', height=30, width=40),
            f' has the image id {2**70}: write a whole number of 64 bits.',
        ),
        ('categories', dict(id=30, name=None), ' has the category 30 with the name None: write a string.'),
        ('categories', dict(id=30, name='\ud800'), " has the category 30 with the name '\\ud800': write a string."),
    ],
)
def test_an_entry_that_is_none_is_one_error(coco, content, key, entry, sentence, told):
    content[key].append(entry)
    assert told(coco(content)) == [('error', sentence)]


@pytest.mark.parametrize(
    ('changes', 'sentence'),
    [
        (dict(file_name=None), 'with the file_name None: write a path.'),
        (dict(file_name=''), "with the file_name '': write a path."),
        (dict(file_name='a\0b'), "with the file_name 'a\\x00b': write a path."),
        (dict(height='30'), "with the height '30': write a whole number of pixels."),
        (dict(height=0), 'with the height 0: write a whole number of pixels.'),
        (dict(width=-40), 'with the width -40: write a whole number of pixels.'),
        (dict(width=float('nan')), 'with the width nan: write a whole number of pixels.'),
        (dict(width=39.5), 'with the width 39.5: write a whole number of pixels.'),
    ],
)
def test_a_damaged_image_is_told_once_and_not_for_each_annotation(coco, content, changes, sentence, told):
    content['images'][0].update(changes)
    assert told(coco(content)) == [('error', f' has the image 1 {sentence}')]


def renamed(content, kind, form):
    """Give the images or the categories other ids."""
    key, reference = ('images', 'image_id') if kind == 'image' else ('categories', 'category_id')
    for entry in content[key]:
        entry['id'] = form(entry['id'])
    for entry in content['annotations']:
        entry[reference] = form(entry[reference])
    return content


@pytest.mark.parametrize('kind', ['image', 'category'])
@pytest.mark.parametrize('form', [str, float, 'name {}'.format])
def test_ids_may_be_strings_or_floats(coco, content, kind, form, told):
    assert told(coco(renamed(content, kind, form), phase='val'), 'val') == []


@pytest.mark.parametrize('kind', ['image', 'category'])
def test_ids_of_two_kinds_stop_evaluation(coco, content, kind, told):
    first = 1 if kind == 'image' else 10
    renamed(content, kind, lambda value: str(value) if value == first else value)
    assert told(coco(content)) == []
    sentence = f" mixes numbers and strings as {kind} ids (first '{first}'): evaluation sorts them."
    assert told(coco(content, phase='val'), 'val') == [('error', sentence)]


def test_annotation_ids_must_be_numbers_from_1_where_pycocotools_keeps_matches_by_them(coco, content, told):
    content['annotations'][0]['id'] = 'a'
    content['annotations'][1]['id'] = '0'
    assert told(coco(content)) == []
    error, warning = told(coco(content, phase='val'), 'val')
    assert error == ('error', " has 1 annotation ids that are no numbers, first 'a': evaluation keeps them in an array "
                     'of numbers.')  # fmt: skip
    assert warning[0] == 'warning' and 'annotation id 0, which pycocotools takes for no match' in warning[1]
