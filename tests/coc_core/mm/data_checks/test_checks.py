"""What is found before training in the data that a config names, and what check_data.py lists."""

import json
import os
import re
from pathlib import Path

import pytest
from mmengine.config import Config
from processes import run_tool

from coc_core.errors import UserError
from coc_core.mm.data_checks.checks import check_data, inspections

ROOT = Path(__file__).parents[4]


@pytest.mark.parametrize('layout', ['coco', 'maps'])
def test_good_data_has_no_problems(layout, request, content, everything):
    cfg = request.getfixturevalue(layout)
    cfg = cfg(content) if layout == 'coco' else cfg
    check_data(cfg, ['train'])
    assert everything(cfg) == ([], [])


def test_another_number_of_classes_than_the_models_is_an_error(coco, content):
    with pytest.raises(UserError, match=r'model.bbox_head.num_classes=80, but the train data has 2 classes'):
        check_data(coco(content, num_classes=80), ['train'])


def test_classes_that_no_config_names_are_the_data_sets_own(maps):
    del maps.train_dataloader.dataset['metainfo']
    maps.train_dataloader.dataset.type = 'ADE20KDataset'
    maps.model = dict(type='EncoderDecoder', decode_head=dict(type='FPNHead', num_classes=3))
    sentence = (
        'model.decode_head.num_classes=3, but the train data has 150 classes (wall, building, sky, floor, tree, ...)'
    )
    (found,) = inspections(maps, ['train'], files=False)
    assert [str(problem) for problem in found.problems] == [f'{sentence}: set it to 150.']


def test_classes_may_be_in_a_file_that_is_read_as_mmengine_reads_it(coco, content, tmp_path):
    cfg = coco(content)
    names = tmp_path / 'classes.txt'
    cfg.train_dataloader.dataset.metainfo.classes = str(names)
    names.write_text('cat\ndog\n')
    check_data(cfg, ['train'])
    names.unlink()
    with pytest.raises(UserError, match=r"classes.txt' is no file: name one that has a class in each line, or"):
        check_data(cfg, ['train'])


@pytest.mark.parametrize('key', ['CLASSES', 'clases'])
def test_classes_by_another_name_are_an_error(maps, key):
    dataset = maps.train_dataloader.dataset
    dataset.metainfo = {key: dataset.metainfo.classes}
    with pytest.raises(UserError, match=f"The metainfo of the train data has '{key}', which nobody reads: call it"):
        check_data(maps, ['train'])


@pytest.mark.parametrize('layout', ['coco', 'maps'])
def test_a_home_folder_that_nobody_expands_is_written_out(layout, request, content, tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', str(tmp_path))
    cfg = request.getfixturevalue(layout)
    cfg = cfg(content) if layout == 'coco' else cfg
    cfg.train_dataloader.dataset.data_root = '~'
    with pytest.raises(UserError, match=f'^~ is no path to this data set: write {tmp_path}'):
        check_data(cfg, ['train'])


def test_another_order_of_classes_in_another_phase_is_an_error(coco, content):
    cfg = coco(content)
    cfg.val_dataloader = dict(dataset=dict(cfg.train_dataloader.dataset, metainfo=dict(classes=['dog', 'cat'])))
    found = [str(p) for inspection in inspections(cfg, ['train', 'val'], files=False) for p in inspection.problems]
    assert any('has the classes dog, cat, but the train data in' in problem for problem in found)


@pytest.mark.parametrize('layout', ['coco', 'maps', 'folders', 'list'])
def test_images_that_training_has_seen_are_named_as_they_test_nothing(layout, request, content, tmp_path, capsys):
    if layout in ('folders', 'list'):
        lines = [f'{label}/{i}.jpg {label}' for label in range(2) for i in range(2)]
        for line in lines:
            request.getfixturevalue('picture')(tmp_path / 'images' / line[:-2])
        (tmp_path / 'list.txt').write_text('\n'.join(lines))
        names = dict(ann_file='../list.txt', metainfo=dict(classes=['0', '1'])) if layout == 'list' else {}
        dataset = dict(type='CustomDataset', data_root=str(tmp_path / 'images'), pipeline=[], **names)
        cfg = Config(dict(default_scope='mmpretrain', train_dataloader=dict(dataset=dataset)))
    else:
        cfg = request.getfixturevalue(layout)
        cfg = cfg(content) if layout == 'coco' else cfg
    relative = os.path.relpath(cfg.train_dataloader.dataset.data_root)
    cfg.val_dataloader = dict(dataset=dict(cfg.train_dataloader.dataset, data_root=relative, test_mode=True))
    check_data(cfg, ['train', 'val'])
    count = '' if layout == 'folders' else ' and 3 more' if layout == 'list' else ' and 1 more'
    what = f'images.*?{count} in common with the training data: what was trained on does not test a model'
    assert re.search(f'^val data in .*: warning: .*{what}', capsys.readouterr().err, re.M)
    # Alone it is data like any other.
    check_data(cfg, ['val'])
    assert 'in common' not in capsys.readouterr().err


def test_an_evaluator_with_the_annotations_of_other_data_is_an_error(coco, content, tmp_path):
    cfg = coco(content, phase='val')
    (tmp_path / 'other.json').write_text(json.dumps(content))
    (tmp_path / 'link.json').symlink_to('instances.json')
    for name in ('instances.json', 'link.json', 'other.json'):
        cfg.val_evaluator = [dict(type='CocoMetric', ann_file=str(tmp_path / name))]
        if name != 'other.json':
            check_data(cfg, ['val'])
    with pytest.raises(
        UserError, match=r'^val_evaluator.ann_file=.*other.json, but the val data is of .*instances.json'
    ):
        check_data(cfg, ['val'])
    # One file may hold the truth of several data sets.
    cfg.val_dataloader.dataset = dict(type='ConcatDataset', datasets=[cfg.val_dataloader.dataset] * 2)
    check_data(cfg, ['val'])


def test_remote_data_is_not_read_but_its_classes_are_counted(coco, content):
    cfg = coco(content, num_classes=3)
    for settings in (dict(backend_args=dict(backend='petrel')), dict(data_root='s3://bucket/')):
        remote = Config(dict(cfg, train_dataloader=dict(dataset=dict(cfg.train_dataloader.dataset, **settings))))
        (found,) = inspections(remote, ['train'], files=True)
        assert [str(problem).split(',')[0] for problem in found.problems] == ['model.bbox_head.num_classes=3']


def test_what_a_task_warns_of_ends_nothing_and_is_told_once(maps, capsys):
    maps.val_dataloader = dict(dataset=dict(maps.train_dataloader.dataset, reduce_zero_label=True))
    check_data(maps, ['train', 'val'], contents=False)
    assert capsys.readouterr().err == ''
    check_data(maps, ['train', 'val'])
    told = 'warning: val_dataloader.dataset.reduce_zero_label=True is not the False of the training data'
    assert capsys.readouterr().err.count(told) == 1


def test_a_missing_folder_is_named_with_its_remedy(maps, tmp_path):
    maps.train_dataloader.dataset.data_prefix.img_path = 'nowhere'
    with pytest.raises(UserError, match='nowhere does not exist: see docs/own-data.md'):
        check_data(maps, ['train'])
    maps.val_dataloader = dict(dataset=dict(type='RepeatDataset', dataset=dict(type='X', data_root='data/digits/x')))
    remedy = 'data/digits/x does not exist: make it with `python tools/dataset_converters/make_digits_data'
    with pytest.raises(UserError, match=remedy):
        check_data(maps, ['val'])
    maps.val_dataloader.dataset.dataset.data_root = 'data/stamps/x'
    with pytest.raises(UserError, match='make_digits_data.py --source stamps --out data/stamps`'):
        check_data(maps, ['val'])


def test_the_tool_lists_every_problem(coco, tmp_path, content):
    content['annotations'][0]['image_id'] = 9
    cfg = coco(content)
    (tmp_path / 'images' / '2.jpg').write_bytes(b'not an image')
    cfg.dump(tmp_path / 'config.py')
    command = [ROOT / 'tools' / 'dataset_converters' / 'check_data.py', tmp_path / 'config.py', '--phase', 'train']
    done = run_tool(*command)
    assert done.returncode == 1 and '2 errors.' in done.stdout
    assert 'annotation 1 belongs to the image 9' in done.stdout and '2.jpg cannot be read' in done.stdout
    listed = run_tool(*command, '--json')
    found = json.loads(listed.stdout)
    assert listed.returncode == 1 and found['errors'] == 2
    (data,) = found['data']
    assert data['summary'].startswith('2 images, 3 annotations')
    assert [problem['level'] for problem in data['problems']] == ['error', 'error']
    assert all(f'  error: {problem["text"]}' in done.stdout for problem in data['problems'])
