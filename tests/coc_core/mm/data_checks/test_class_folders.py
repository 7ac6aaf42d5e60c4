"""Images in class folders: what mmpretrain makes of them, and what is said where that is not what was meant."""

import os
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmpretrain.datasets import CustomDataset
from mmpretrain.registry import DATASETS
from PIL import Image

import mmpretrain_plugin  # noqa: F401
from coc_core.errors import UserError
from coc_core.mm.data_checks.checks import check_data, inspections

CONFIG = Path(__file__).parents[4] / 'configs' / 'classification' / 'coc-tiny_8xb128_in1k.py'


def fill(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def config(root, *, num_classes=None, **dataset):
    def loader(phase):
        return dict(batch_size=1, dataset=dict(type='CustomDataset', data_root=str(root / phase), **dataset))

    model = dict(type='ImageClassifier', head=dict(type='LinearClsHead', num_classes=num_classes))
    phases = {f'{path.name}_dataloader': loader(path.name) for path in root.iterdir()}
    return Config(dict(default_scope='mmpretrain', model=model, **phases))


def found(root, phases=('train',), **settings):
    """Return each problem as its level and its sentence, without the place of the folders."""
    problems = [p for i in inspections(config(root, **settings), phases, files=False) for p in i.problems]
    return [(p.level, str(p).replace(f'{root}{os.sep}', '')) for p in problems]


def test_good_folders_are_counted_and_their_names_are_the_classes(tmp_path):
    fill(tmp_path / 'train', 'cat/a.jpg', 'cat/2020/b.JPG', 'dog/c.png')
    (inspection,) = inspections(config(tmp_path, num_classes=2), ['train'], files=True)
    assert inspection.problems == [] and inspection.classes == ['cat', 'dog'] and len(inspection.samples) == 3
    assert inspection.summary == '3 images in 2 class folders'
    for classes in (['cat', 'dog'], ['Cat', 'Dog']):
        assert found(tmp_path, metainfo=dict(classes=classes), num_classes=2) == []


def test_other_folders_in_another_phase_are_an_error_with_both_lists(tmp_path):
    fill(tmp_path, 'train/cat/a.jpg', 'train/dog/a.jpg', 'val/dog/a.jpg', 'val/eagle/a.jpg')
    sentence = (
        r'val data in .*val has the classes dog, eagle, but the train data in .*train has cat, dog: from label 0 on'
    )
    with pytest.raises(UserError, match=sentence):
        check_data(config(tmp_path), ['train', 'val'])
    check_data(config(tmp_path), ['val'])


@pytest.mark.parametrize(
    ('folders', 'classes', 'expected'),
    [
        (['cat', 'dog'], ['dog', 'cat'], ('error', "so that 'cat' has the label 0 of 'dog'")),
        (['bear', 'cat', 'dog'], ['cat', 'dog', 'emu'], ('error', "so that 'cat' has the label 1 of 'dog'")),
        (['0', '1', '10', '2'], ['0', '1', '2', '10'], ('error', "so that '10' has the label 2 of '2'")),
        (['cat', 'dog', 'emu'], ['cat', 'dog'], ('error', '3 folders for 2 classes')),
        (['train', 'val'], ['cat', 'dog'], ('warning', "so that 'train' is the class 'cat'")),
        (['0', '1', '10', '2'], ['ape', 'bee', 'cat', 'dog'], ('warning', "so that '0' is the class 'ape'")),
        (['n01440764', 'n01443537'], ['tench', 'goldfish'], None),
        (['1', '2', '3'], ['ape', 'bee', 'cat'], None),
    ],
)
def test_folders_are_compared_with_the_names_of_metainfo(tmp_path, folders, classes, expected):
    fill(tmp_path / 'train', *(f'{folder}/a.jpg' for folder in folders))
    told = found(tmp_path, metainfo=dict(classes=classes))
    if expected is None:
        assert told == []
        return
    ((level, sentence),) = told
    assert level == expected[0] and expected[1] in sentence
    assert f'the class folders {", ".join(folders)}, but the classes are {", ".join(classes)}' in sentence
    # What the sentence says is what mmpretrain does.
    if len(folders) == len(classes):
        dataset = CustomDataset(data_root=str(tmp_path / 'train'), metainfo=dict(classes=classes))
        assert [dataset.get_data_info(i)['gt_label'] for i in range(len(folders))] == list(range(len(folders)))
        assert [Path(dataset.get_data_info(i)['img_path']).parent.name for i in range(len(folders))] == folders


def test_folders_of_ones_own_need_their_names_where_the_data_set_has_others(tmp_path):
    fill(tmp_path / 'train', 'cat/a.jpg', 'dog/a.jpg')
    cfg = config(tmp_path, num_classes=2)
    cfg.train_dataloader.dataset.update(type='ImageNet', data_root=str(tmp_path), split='train')
    with pytest.raises(UserError, match=r'cat, dog, but the classes are tench, .*2 folders for 1000 classes: write'):
        check_data(cfg, ['train'])


def test_hidden_folders_and_files_are_neither_classes_nor_samples(tmp_path):
    fill(tmp_path / 'train', 'cat/a.jpg', 'dog/b.jpg')
    hidden = (
        '.ipynb_checkpoints/a.jpg',
        '__MACOSX/cat/c.jpg',
        'cat/.ipynb_checkpoints/a.jpg',
        'cat/._a.jpg',
        '.DS_Store',
    )
    fill(tmp_path / 'train', *hidden)
    (inspection,) = inspections(config(tmp_path, num_classes=2), ['train'], files=True)
    assert inspection.problems == [] and len(inspection.samples) == 2
    dataset = CustomDataset(data_root=str(tmp_path / 'train'))
    assert dataset.metainfo['classes'] == ('cat', 'dog') and len(dataset) == 2


def test_an_empty_class_folder_is_an_error_in_training_alone(tmp_path):
    fill(tmp_path, 'train/cat/a.jpg', 'train/dog/notes', 'val/cat/a.jpg', 'val/dog/notes')
    told = found(tmp_path, ('train', 'val'))
    assert ('error', 'train has no sample of 1 of the classes (dog): what has none cannot be learned.') in told
    assert ('warning', 'val has no sample of 1 of the classes (dog): what has none is not measured.') in told
    (tmp_path / 'train' / 'cat' / 'a.jpg').unlink()
    assert any(
        level == 'error' and 'train has no images in its 2 class folders' in what for level, what in found(tmp_path)
    )


def test_files_that_training_passes_over_are_named_and_counted(tmp_path):
    fill(tmp_path / 'train', 'cat/a.jpg', 'dog/b.jpg', 'dog/c.WEBP', 'dog/d.webp', 'dog/notes.txt', 'loose.jpg')
    ((level, sentence),) = found(tmp_path)
    assert level == 'left out' and sentence.startswith('train has files that are not read: ')
    for part in (
        '1 beside the class folders (first train/loose.jpg)',
        '2 *.webp (first train/dog/c.WEBP)',
        '1 *.txt (first',
    ):
        assert part in sentence
    assert len(CustomDataset(data_root=str(tmp_path / 'train'))) == 2
    assert '2 *.webp' not in str(found(tmp_path, extensions=['.jpg', '.webp']))


def test_links_are_followed_and_those_that_lead_nowhere_are_named(tmp_path):
    fill(tmp_path, 'elsewhere/eagle/a.jpg', 'train/cat/a.jpg')
    train = tmp_path / 'train'
    (train / 'eagle').symlink_to(tmp_path / 'elsewhere' / 'eagle')
    (train / 'cat' / 'b.jpg').symlink_to(tmp_path / 'elsewhere' / 'eagle' / 'a.jpg')
    (inspection,) = inspections(config(tmp_path), ['train'], files=True)
    assert inspection.problems == [] and inspection.classes == ['cat', 'eagle']
    assert len(inspection.samples) == len(CustomDataset(data_root=str(train))) == 3
    (train / 'dog').symlink_to(tmp_path / 'nowhere')
    (train / 'cat' / 'self.jpg').symlink_to('self.jpg')
    (train / 'eagle' / 'again').symlink_to(train / 'eagle')
    assert {what for level, what in found(tmp_path) if level == 'error'} == {
        'train/dog is a link to what does not exist: mend or remove it.',
        'train/cat/self.jpg is a link to what does not exist: mend or remove it.',
        'train/eagle/again is a link to a folder that it lies in, which has no end: remove it.',
    }


def test_without_labels_a_folder_is_one_heap(tmp_path):
    fill(tmp_path / 'train', 'a.jpg', 'deep/b.jpg', 'c.txt')
    (inspection,) = inspections(config(tmp_path, with_label=False, num_classes=5), ['train'], files=True)
    assert inspection.classes is None and inspection.summary == '2 images' and len(inspection.samples) == 2
    assert [(p.level, '1 *.txt' in str(p)) for p in inspection.problems] == [('left out', True)]


def test_parts_of_one_phase_may_have_classes_that_others_lack(tmp_path):
    fill(tmp_path, 'train/cat/a.jpg', 'train/dog/notes', 'more/cat/notes', 'more/dog/a.jpg')
    cfg = config(tmp_path)
    both = [cfg.train_dataloader.dataset, cfg.more_dataloader.dataset]
    cfg.train_dataloader.dataset = dict(type='ConcatDataset', datasets=both)
    check_data(cfg, ['train'])


def test_every_format_that_our_configs_name_is_decoded(tmp_path):
    cfg = Config.fromfile(CONFIG)
    pixels = np.full((8, 8, 3), 90, np.uint8)
    formats = {'.jfif': 'JPEG', '.jpe': 'JPEG', '.pnm': 'PPM', '.pgm': 'PPM', '.pbm': 'PPM'}
    for i, ending in enumerate(cfg.extensions):
        path = tmp_path / 'train' / f'{i % 2}' / f'{i}{ending.upper() if i % 3 else ending}'
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path, format=formats.get(ending))
    settings = dict(data_root=str(tmp_path), metainfo=dict(classes=['0', '1']))
    for phase in ('train', 'val'):
        assert cfg[f'{phase}_dataloader'].dataset.extensions == cfg.extensions
    init_default_scope('mmpretrain')
    pipeline = [dict(type='LoadImageFromFile')]
    dataset = DATASETS.build(dict(cfg.train_dataloader.dataset, **settings, pipeline=pipeline))
    assert [dataset[i]['img'].shape for i in range(len(dataset))] == [(8, 8, 3)] * len(cfg.extensions)


def test_folders_that_cannot_be_listed_are_named(tmp_path):
    (tmp_path / 'train').mkdir()
    cfg = config(tmp_path)
    cfg.train_dataloader.dataset.data_prefix = 'images'
    ((inspection),) = inspections(cfg, ['train'], files=False)
    assert 'train/images cannot be listed (No such file or directory)' in str(inspection.problems[0])
