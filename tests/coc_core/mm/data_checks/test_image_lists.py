"""Text files that list images with their labels: what mmpretrain cannot read of them, or reads as something else."""

import pytest
from mmengine.config import Config
from mmpretrain.datasets import CustomDataset

import mmpretrain_plugin  # noqa: F401
from coc_core.errors import UserError
from coc_core.mm.data_checks.checks import check_data, inspections

NEEDED = 'give the name of an image, a space and a whole number.'


@pytest.fixture
def cfg(tmp_path):
    for name in ('a.jpg', 'b c.jpg', 'deep/d.jpg'):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    dataset = dict(type='CustomDataset', data_root=str(tmp_path), ann_file='list.txt')
    dataset['metainfo'] = dict(classes=['cat', 'dog'])
    return Config(dict(default_scope='mmpretrain', train_dataloader=dict(batch_size=1, dataset=dataset)))


def found(cfg, tmp_path, text):
    (tmp_path / 'list.txt').write_bytes(text if isinstance(text, bytes) else text.encode())
    (inspection,) = inspections(cfg, ['train'], files=True)
    return inspection, [str(p).replace(f'{tmp_path}/', '') for p in inspection.problems]


def test_a_good_list_is_read_as_mmpretrain_reads_it(cfg, tmp_path):
    inspection, problems = found(cfg, tmp_path, 'a.jpg 0\r\nb c.jpg 1 \ndeep/d.jpg 1\n')
    assert problems == [] and inspection.summary == '3 images' and len(inspection.samples) == 3
    assert inspection.classes is None
    assert (
        CustomDataset(**{k: v for k, v in cfg.train_dataloader.dataset.items() if k != 'type'}).get_gt_labels().sum()
        == 2
    )


@pytest.mark.parametrize(
    ('line', 'sentence'),
    [
        ('', 'list.txt, line 3, is empty: remove it.'),
        ('deep/d.jpg', f"list.txt, line 3, is 'deep/d.jpg': {NEEDED}"),
        ('deep/d.jpg\t1', f"list.txt, line 3, is 'deep/d.jpg\\t1': {NEEDED}"),
        ('deep/d.jpg 1.0', f"list.txt, line 3, is 'deep/d.jpg 1.0': {NEEDED}"),
        ('deep/d.jpg 2', 'list.txt, line 3, has the label 2, but there are 2 classes, from 0.'),
        ('deep/d.jpg -1', 'list.txt, line 3, has the label -1, but there are 2 classes, from 0.'),
        ('a.jpg 1', 'list.txt, line 3, gives a.jpg the label 1, which has the label 0 above.'),
        ('gone.jpg 1', 'gone.jpg does not exist, although list.txt lists it.'),
    ],
)  # fmt: skip
def test_each_wrong_line_is_named(cfg, tmp_path, line, sentence):
    _, problems = found(cfg, tmp_path, f'a.jpg 0\nb c.jpg 1\n{line}\n')
    assert problems == [sentence]


def test_an_image_that_is_measured_twice_is_told(cfg, tmp_path):
    assert found(cfg, tmp_path, 'a.jpg 0\nb c.jpg 1\na.jpg 0\n')[1] == []
    cfg.val_dataloader = cfg.train_dataloader
    (inspection,) = inspections(cfg, ['val'], files=False)
    (problem,) = inspection.problems
    assert problem.level == 'warning' and 'lists 1 images more than once, first a.jpg' in str(problem)


def test_a_label_without_a_sample_is_named(cfg, tmp_path):
    _, problems = found(cfg, tmp_path, 'a.jpg 0\n')
    assert problems == ['list.txt has no sample of 1 of the classes (dog): what has none cannot be learned.']


def test_without_names_the_model_says_how_many_classes_there_are(cfg, tmp_path):
    del cfg.train_dataloader.dataset['metainfo']
    _, problems = found(cfg, tmp_path, 'a.jpg 0\nb c.jpg 7\n')
    assert problems == []
    cfg.model = dict(type='ImageClassifier', head=dict(type='LinearClsHead', num_classes=3))
    _, problems = found(cfg, tmp_path, 'a.jpg 0\nb c.jpg 3\ndeep/d.jpg 2\n')
    assert problems == [
        'list.txt, line 2, has the label 3, but there are 3 classes, from 0.',
        'list.txt has no sample of 1 of the classes (1): what has none cannot be learned.',
    ]


def test_lists_without_labels_and_lists_that_are_no_text(cfg, tmp_path):
    cfg.train_dataloader.dataset.with_label = False
    _, problems = found(cfg, tmp_path, 'a.jpg\n\nb c.jpg\n')
    assert problems == ['list.txt, line 2, is empty: remove it.']
    _, (problem,) = found(cfg, tmp_path, b'\xff\xd8\xff')
    assert problem.startswith('list.txt cannot be read as text (')
    _, (problem,) = found(cfg, tmp_path, '')
    assert problem == 'list.txt lists no images.'


def test_the_list_of_an_imagenet_split_is_read(cfg, tmp_path):
    cfg.train_dataloader.dataset = dict(type='ImageNet', data_root=str(tmp_path), split='train')
    (tmp_path / 'meta').mkdir()
    (tmp_path / 'train').mkdir()
    (tmp_path / 'train' / 'a.jpg').touch()
    (tmp_path / 'meta' / 'train.txt').write_text('a.jpg 1000\n')
    with pytest.raises(UserError, match=r'train.txt, line 1, has the label 1000, but there are 1000 classes'):
        check_data(cfg, ['train'])
