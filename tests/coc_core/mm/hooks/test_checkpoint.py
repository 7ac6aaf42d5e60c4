"""A checkpoint that mmengine loads goes through this project's own loading."""

import logging
from types import SimpleNamespace

import pytest
import torch
from mmengine.model import BaseTTAModel

from coc_core import ContextCluster
from coc_core.checkpoints import CheckpointError, to_official
from coc_core.mm.hooks.checkpoint import LoadCheckpointHook
from coc_core.variants import VARIANTS

CONFIG = VARIANTS['coc_tiny'].override(
    depths=(1, 1, 1, 1), dims=(8, 8, 8, 8), mlp_ratios=2, heads=2, head_dim=4, layer_scale_init=0.5
)


def classifier(seed, classes=3):
    torch.manual_seed(seed)
    return ContextCluster(CONFIG, num_classes=classes)


def load(model, content, **options):
    hook = LoadCheckpointHook('a.pth', **options)
    hook.after_load_checkpoint(SimpleNamespace(model=model, logger=logging.getLogger('run')), content)


def assert_same(model, state):
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


@pytest.fixture(autouse=True)
def log(caplog):
    caplog.set_level(logging.INFO)
    return caplog


@pytest.mark.parametrize('published', [False, True])
def test_mmengine_takes_over_what_this_project_has_loaded(log, published):
    state, model = classifier(1).state_dict(), classifier(2)
    content = {'state_dict': to_official(state) if published else state}
    load(model, content)
    assert_same(model, state)
    # mmengine loads it once more, by its own names.
    assert content['state_dict'].keys() == state.keys()
    (record,) = log.records
    assert record.levelno == logging.INFO and record.message.startswith('a.pth: ')


def test_the_model_under_a_wrapper_is_loaded():
    class Averaged(BaseTTAModel):
        def merge_preds(self, data_samples_list):
            return data_samples_list

    model = classifier(2)
    wrapper = Averaged.__new__(Averaged)
    torch.nn.Module.__init__(wrapper)
    wrapper.module = model
    state = classifier(1).state_dict()
    load(wrapper, {'state_dict': state})
    assert_same(model, state)


def test_another_model_is_an_error_and_changes_nothing(log):
    model = classifier(2)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(CheckpointError, match=r'a.pth .*head.weight \[5, 8\] where the model has \[3, 8\]'):
        load(model, {'state_dict': classifier(1, classes=5).state_dict()})
    assert_same(model, before)


def test_a_start_need_not_fit_and_the_log_warns_of_what_starts_fresh(log):
    model, start = classifier(2), classifier(1, classes=5).state_dict()
    head = model.head.weight.clone()
    content = {'state_dict': start}
    load(model, content, strict=False)
    assert torch.equal(model.head.weight, head)
    assert torch.equal(model.stem.weight, start['stem.weight'])
    # What mmengine loads after that fits.
    assert content['state_dict']['head.weight'].shape == head.shape
    (record,) = log.records
    assert record.levelno == logging.WARNING and 'head.weight [5, 8] where the model has [3, 8]' in record.message


def test_a_start_of_which_nothing_fits_is_none():
    for state in (classifier(1).state_dict(), {'features.0.weight': torch.zeros(3)}):
        with pytest.raises(CheckpointError, match=r'load_from: a.pth .* holds nothing that fits Linear: name a'):
            load(torch.nn.Linear(2, 2), {'state_dict': state}, strict=False)


@pytest.mark.parametrize(
    ('classes', 'level'),
    [
        (['cat', 'dog', 'cow'], None), (['Cat', 'dog', 'cow'], None), (None, None), (['cat', 'dog', 'pig'], 'warning'),
        (['dog', 'cat', 'cow'], 'error'), (['cow', 'pig', 'hen'], 'error'), (['hen', 'cat', 'dog', 'cow'], 'error'),
    ],
)  # fmt: skip
def test_a_class_with_another_label_than_in_training_is_not_scored(log, classes, level):
    content = {'state_dict': classifier(1).state_dict(), 'meta': {'dataset_meta': {'classes': ('cat', 'dog', 'cow')}}}
    if level == 'error':
        with pytest.raises(
            CheckpointError, match='a.pth was trained with the classes cat, dog, cow, but here they are'
        ):
            load(classifier(2), content, classes=classes)
        return
    load(classifier(2), content, classes=classes)
    told = [record.message for record in log.records if record.levelno == logging.WARNING]
    assert bool(told) == (level == 'warning') and all(
        'here they are cat, dog, pig: if these are' in text for text in told
    )


@pytest.mark.parametrize(
    ('classes', 'told'), [(['dog', 'cat', 'cow'], True), (['cat', 'dog', 'cow'], False), (['cow', 'pig', 'hen'], False)]
)
def test_a_start_of_the_same_classes_in_another_order_is_told(log, classes, told):
    content = {'state_dict': classifier(1).state_dict(), 'meta': {'dataset_meta': {'classes': ('cat', 'dog', 'cow')}}}
    load(classifier(2), content, strict=False, classes=classes)
    warnings = [record.message for record in log.records if record.levelno == logging.WARNING]
    assert [text.startswith('a.pth was trained with the same classes in another order') for text in warnings] == (
        [True] if told else []
    )
