"""The options of testing, each as the config's task understands it."""

import json
import logging
import pickle
from argparse import Namespace
from types import SimpleNamespace
from typing import ClassVar

import pytest
import torch
from mmengine.config import Config

from coc_core.errors import UserError
from coc_core.mm import task as task_module
from coc_core.mm.cli.testing import apply_options, compare_with_zoo, save_metrics
from coc_core.mm.task import Task, register_task


class Files(Task):
    scope = 'files'
    tta_model: ClassVar = dict(type='Average')

    def tta_pipeline(self, pipeline):
        return [*pipeline, dict(type='Flips')]

    def show_predictions(self, cfg, **options):
        cfg.shown = options


class Folders(Task):
    scope = 'folders'
    prediction_endings = ()


@pytest.fixture(autouse=True)
def tasks(monkeypatch):
    monkeypatch.setattr(task_module, '_TASKS', {})
    register_task(Files())
    register_task(Folders())


@pytest.fixture
def checkpoint(tmp_path):
    torch.save({'state_dict': {}}, tmp_path / 'a.pth')
    return str(tmp_path / 'a.pth')


def config(scope='files', **entries):
    dataset = dict(type='Wrapper', dataset=dict(type='Pictures', pipeline=[dict(type='Load')]))
    return Config(
        dict(
            default_scope=scope, model=dict(type='Model'), test_dataloader=dict(dataset=dataset),
            test_cfg=dict(type='TestLoop'), test_evaluator=dict(type='Metric'), resume=True, **entries,
        )
    )  # fmt: skip


def arguments(checkpoint, **given):
    defaults = dict(config='a.py', checkpoint=checkpoint, out=None, out_item=None, show=False, show_dir=None)
    return Namespace(**(defaults | dict(interval=1, wait_time=2.0, tta=False) | given))


def test_nothing_but_the_checkpoint_is_written_into_the_config(checkpoint):
    cfg = config()
    apply_options(cfg, arguments(checkpoint))
    assert cfg.to_dict() == config().to_dict() | dict(load_from=checkpoint, resume=False)


@pytest.mark.parametrize('name', ['test_dataloader', 'test_cfg', 'test_evaluator'])
def test_a_config_without_a_test_is_told(checkpoint, name):
    with pytest.raises(UserError, match=f'a.py cannot be tested: it has no {name}'):
        apply_options(Config({**config().to_dict(), name: None}), arguments(checkpoint))


def test_a_missing_checkpoint_is_told(tmp_path):
    with pytest.raises(UserError, match='nowhere.pth does not exist'):
        apply_options(config(), arguments(str(tmp_path / 'nowhere.pth')))


@pytest.mark.parametrize(
    ('scope', 'options', 'sentence'),
    [
        ('files', dict(out='found.json'), r'--out found.json must end in .pkl or .pickle'),
        ('files', dict(out='found.json', out_item='pred'), r'must end in .pkl or .pickle'),
        ('files', dict(out='found.txt', out_item='metrics'), r'must end in .json or .yaml or .yml or .pkl'),
        ('folders', dict(out='folder', out_item='metrics'), r'--out folder must end in .json'),
        ('files', dict(out_item='metrics'), r'--out-item needs --out FILE'),
    ],
)
def test_wrong_endings_are_told(checkpoint, scope, options, sentence):
    with pytest.raises(UserError, match=sentence):
        apply_options(config(scope), arguments(checkpoint, **options))


@pytest.mark.parametrize(
    ('scope', 'options', 'dumped'),
    [
        ('files', dict(out='a.pkl'), True),
        ('files', dict(out='a.pickle', out_item='pred'), True),
        ('folders', dict(out='a folder'), True),
        ('files', dict(out='a.json', out_item='metrics'), False),
        ('folders', dict(out='a.yaml', out_item='metrics'), False),
    ],
)
def test_predictions_are_dumped_unless_it_is_metrics_that_are_wanted(checkpoint, scope, options, dumped):
    cfg = config(scope)
    apply_options(cfg, arguments(checkpoint, **options))
    dump = dict(type='DumpResults', out_file_path=options['out'])
    assert cfg.test_evaluator == ([dict(type='Metric'), dump] if dumped else dict(type='Metric'))


def test_a_folder_of_pictures_is_made_absolute(checkpoint, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cfg = config()
    apply_options(cfg, arguments(checkpoint, show_dir='pictures', interval=5))
    assert cfg.shown == dict(window=False, folder=str(tmp_path / 'pictures'), interval=5, wait_time=2.0)
    apply_options(cfg, arguments(checkpoint, show=True, wait_time=0.5))
    assert cfg.shown == dict(window=True, folder=None, interval=1, wait_time=0.5)


def test_the_model_and_the_innermost_pipeline_are_augmented(checkpoint):
    cfg = config()
    apply_options(cfg, arguments(checkpoint, tta=True))
    assert cfg.model == dict(type='Average', module=dict(type='Model'))
    assert cfg.test_dataloader.dataset.dataset.pipeline == [dict(type='Load'), dict(type='Flips')]


def test_all_data_sets_that_are_joined_are_augmented(checkpoint):
    cfg = config()
    parts = [dict(type='Pictures', pipeline=[dict(type='Load')]) for _ in range(2)]
    cfg.test_dataloader.dataset = dict(type='ConcatDataset', datasets=parts)
    apply_options(cfg, arguments(checkpoint, tta=True))
    assert all(
        part.pipeline == [dict(type='Load'), dict(type='Flips')] for part in cfg.test_dataloader.dataset.datasets
    )
    assert 'pipeline' not in cfg.test_dataloader.dataset


def test_a_configs_own_augmentation_has_the_word(checkpoint):
    cfg = config(tta_model=dict(type='Votes'), tta_pipeline=[dict(type='Turns')])
    apply_options(cfg, arguments(checkpoint, tta=True))
    assert cfg.model.type == 'Votes' and cfg.test_dataloader.dataset.dataset.pipeline == [dict(type='Turns')]


def test_a_task_without_augmentation_is_told(checkpoint):
    with pytest.raises(UserError, match='--tta: this config sets no tta_model and tta_pipeline'):
        apply_options(config('folders'), arguments(checkpoint, tta=True))


@pytest.mark.parametrize(('name', 'load'), [('new/a.json', json.loads), ('a.pkl', pickle.loads)])
def test_metrics_are_written_where_they_are_asked_for(tmp_path, name, load):
    metrics = {'accuracy/top1': 97.5}
    save_metrics(metrics, Namespace(out=str(tmp_path / name), out_item='metrics'))
    assert load((tmp_path / name).read_bytes()) == metrics
    save_metrics(metrics, Namespace(out=str(tmp_path / 'b.pkl'), out_item='pred'))
    save_metrics(metrics, Namespace(out=None, out_item=None))
    assert not (tmp_path / 'b.pkl').exists()


def test_only_the_first_process_writes_metrics(tmp_path, monkeypatch):
    monkeypatch.setattr('coc_core.mm.cli.testing.is_main_process', lambda: False)
    save_metrics({'a': 1.0}, Namespace(out=str(tmp_path / 'a.json'), out_item='metrics'))
    assert not list(tmp_path.iterdir())


def test_a_config_that_the_zoo_does_not_list_is_not_compared(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    runner = SimpleNamespace(logger=logging.getLogger('run'))
    compare_with_zoo(runner, {'a': 1.0}, str(tmp_path / 'a.py'))
    (tmp_path / 'metafile.yml').write_text('Models: [{Name: b, Results: [{Metrics: {a: 2}}]}, {Name: a}]')
    compare_with_zoo(runner, {'a': 1.0}, str(tmp_path / 'a.py'))
    assert caplog.messages == []
