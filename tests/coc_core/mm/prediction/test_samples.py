"""How samples are loaded and joined."""

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import default_collate, pseudo_collate

from coc_core.errors import UserError
from coc_core.mm.prediction.inputs import Item
from coc_core.mm.prediction.samples import Collate, Loaded, Samples, collate_function, without_annotations


def test_pipelines_without_what_loads_annotations():
    keep = dict(type='Resize', scale=3)
    pipeline = [
        dict(type='LoadImageFromFile'),
        dict(type='mmdet.LoadPanopticAnnotations'),
        keep,
        dict(type='TestTimeAug', transforms=[[keep, dict(type='LoadAnnotations')], [dict(type='LoadAnnotations')]]),
        dict(type='Pack'),
    ]
    expected = [dict(type='LoadImageFromFile'), keep, dict(type='TestTimeAug', transforms=[[keep]]), dict(type='Pack')]
    assert without_annotations(pipeline) == expected
    assert len(pipeline) == 5 and len(pipeline[3]['transforms']) == 2


class Numbers:
    """A kind of files whose content is their name."""

    file_step = None

    def start(self, item):
        if item.path == '/torn':
            raise UserError('/torn is torn.')
        return {'name': item.path}

    def columns(self, data):
        return {'digits': len(data['name']) - 1} if data.get('name') else None

    def problem(self, item):
        return f'{item.path} cannot be read.' if item.path == '/odd' else None


def refuse(data):
    if data['name'] in ('/odd', '/bug'):
        raise RuntimeError(data['name'])
    if data['name'] == '/left':
        return None
    if data['name'] == '/short':
        raise UserError('the cloud is short.')
    return {'inputs': torch.zeros(len(data['name'])), 'random': float(np.random.rand())}


@pytest.mark.parametrize(
    ('name', 'sentence'),
    [
        ('/torn', '/torn is torn.'),
        ('/odd', '/odd cannot be read.'),
        ('/left', '/left is left out by function of the pipeline.'),
        ('/short', '/short: the cloud is short.'),
    ],
)
def test_what_the_user_has_to_mend_is_a_sentence(name, sentence, capsys):
    assert Samples([refuse], Numbers())[Item(name)] == Loaded(problem=sentence)
    assert capsys.readouterr().err == ''


def test_what_is_no_files_fault_keeps_its_trace(capsys):
    with pytest.raises(RuntimeError, match='/bug'):
        Samples([refuse], Numbers())[Item('/bug')]
    assert capsys.readouterr().err == 'error while running function on /bug:\n'


def test_in_a_batch_a_sample_that_a_step_fails_on_is_told_beside_the_others(capsys):
    sentence = '/bug cannot be predicted: function of the pipeline failed (RuntimeError: /bug).'
    samples = Samples([refuse], Numbers()).__getitems__([Item('/10'), Item('/bug'), Item('/odd'), Item('/11')])
    batch = Collate(pseudo_collate)(samples)
    assert [group.places for group in batch.groups] == [[0, 3]]
    assert batch.problems == {1: sentence, 2: '/odd cannot be read.'} and batch.failed == [1]
    assert capsys.readouterr().err == ''


def test_random_numbers_are_the_samples_own():
    samples = Samples([refuse], Numbers())
    first, other, again = (samples[Item(name)].data['random'] for name in ('/10', '/11', '/10'))
    assert first == again != other


@pytest.mark.parametrize('join', [pseudo_collate, default_collate])
def test_samples_of_one_size_are_joined(join):
    samples = Samples([refuse], Numbers())
    batch = Collate(join)([samples[Item(name)] for name in ('/10', '/torn', '/200', '/11')])
    assert [group.places for group in batch.groups] == [[0, 3], [2]]
    assert [len(group.data['inputs']) for group in batch.groups] == [2, 1]
    assert batch.problems == {1: '/torn is torn.'}
    assert batch.columns == [{'digits': 2}, None, {'digits': 3}, {'digits': 2}]


def test_samples_are_joined_as_the_test_joins_them():
    silent = Config(dict(test_dataloader=dict(batch_size=1)))
    says = Config(dict(test_dataloader=dict(collate_fn=dict(type='default_collate'))))
    pair = [{'x': torch.zeros(2)}] * 2
    assert isinstance(collate_function(silent, {})(pair)['x'], list)
    assert collate_function(silent, {'collate_fn': dict(type='default_collate')})(pair)['x'].shape == (2, 2)
    assert collate_function(says, {})(pair)['x'].shape == (2, 2)
