"""Which task a config is of, and what every task can do."""

from types import SimpleNamespace

import pytest
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.registry import DATASETS

from coc_core.errors import UserError
from coc_core.mm import task as task_module
from coc_core.mm.data_checks.inspection import Inspection
from coc_core.mm.task import Task, register_task, task_of, visualization_hook


class Pictures(BaseDataset):
    def load_data_list(self):
        return [dict(img_path='gone.jpg'), dict(img_path='')]


class Knowing(Pictures):
    @classmethod
    def inspect(cls, inspection, dataset):
        inspection.summary = 'all that there is to know'


@pytest.fixture
def tasks(monkeypatch):
    """No task is known yet."""
    monkeypatch.setattr(task_module, '_TASKS', {})
    return task_module._TASKS


@pytest.fixture
def datasets(monkeypatch):
    monkeypatch.setitem(DATASETS._module_dict, 'Pictures', Pictures)
    monkeypatch.setitem(DATASETS._module_dict, 'Knowing', Knowing)


def config(**entries):
    return Config(dict(test_evaluator=dict(type='First'), **entries))


def test_a_task_is_found_by_its_scope(tasks):
    class Depth(Task):
        scope = 'depth'

    first, second = Depth(), Depth()
    register_task(first)
    assert task_of(dict(default_scope='depth')) is first
    register_task(second)
    assert task_of(dict(default_scope='depth')) is second


def test_a_packages_own_config_gets_the_plugin_of_its_scope(tasks, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / 'made_up_plugin.py').write_text(
        'from coc_core.mm.task import Task, register_task\n'
        "class MadeUp(Task):\n    scope = 'made_up'\n"
        'register_task(MadeUp())\n'
    )
    assert type(task_of(dict(default_scope='made_up'))).__name__ == 'MadeUp'


@pytest.mark.parametrize('cfg', [dict(default_scope='unheard_of'), dict(default_scope=None), dict()])
def test_a_scope_without_a_plugin_has_a_task_of_mmengines(tasks, cfg):
    assert type(task_of(cfg)) is Task and tasks == {}


def test_predictions_are_dumped_beside_one_metric_or_several():
    cfg = config()
    Task().dump_predictions(cfg, 'a.pkl')
    Task().dump_predictions(cfg, 'b.pkl')
    dumps = [dict(type='DumpResults', out_file_path=name) for name in ('a.pkl', 'b.pkl')]
    assert cfg.test_evaluator == [dict(type='First'), *dumps]


def test_pictures_are_drawn_by_the_hook_and_saved_by_the_visualizer():
    cfg = config(default_hooks=dict(visualization=dict(type='Hook')), visualizer=dict(type='Visualizer'))
    Task().show_predictions(cfg, window=True, folder=None, interval=3, wait_time=1.5)
    assert cfg.default_hooks.visualization == dict(type='Hook', draw=True, show=True, wait_time=1.5)
    assert 'save_dir' not in cfg.visualizer
    Task().show_predictions(cfg, window=False, folder='/pictures', interval=3, wait_time=1.5)
    assert cfg.visualizer.save_dir == '/pictures'


@pytest.mark.parametrize('hooks', [{}, dict(default_hooks=None), dict(default_hooks=dict(visualization=None))], ids=str)
def test_a_config_that_draws_nothing_is_told(hooks):
    with pytest.raises(UserError, match='--show and --show-dir: this task has no pictures to show'):
        visualization_hook(config(**hooks))


def inspected(task, dataset, *, files):
    inspection = Inspection('train data')
    task.inspect(inspection, dataset, files=files)
    return inspection


@pytest.mark.usefixtures('datasets')
def test_a_data_set_that_can_inspect_itself_has_the_word():
    found = inspected(Task(), dict(type='Knowing'), files=False)
    assert (found.name, found.summary) == ('train data', 'all that there is to know')


@pytest.mark.usefixtures('datasets')
def test_of_any_other_data_set_the_images_are_opened_if_asked_for():
    dataset = dict(type='Pictures', pipeline=[dict(type='NotLookedAt')])
    assert inspected(Task(), dataset, files=False) == Inspection('train data')
    found = inspected(Task(), dataset, files=True)
    assert found.summary == '2 samples'
    # A sample without a file has nothing to open.
    (open_file,) = found.samples
    assert [str(problem) for problem in open_file().problems] == ['gone.jpg does not exist.']


def test_the_backbone_is_exported_with_its_maps():
    backbone = object()
    assert Task().exported_part(SimpleNamespace(backbone=backbone)) == (backbone, [f'stage{i}' for i in range(4)])


def test_an_exported_size_has_to_be_possible():
    cfg = config(model=dict(backbone=dict(type='ContextCluster')))
    assert Task().input_shape(cfg, [64]) == (3, 64, 64) and Task().input_shape(cfg, [64, 32]) == (3, 64, 32)
    with pytest.raises(UserError, match='--size 0 32: give height and width'):
        Task().input_shape(cfg, [0, 32])


def test_the_test_data_are_what_is_wrapped_or_the_first_of_what_is_joined():
    inner = dict(type='Pictures', pipeline=[])
    joined = dict(type='ConcatDataset', datasets=[inner, dict(type='Other', pipeline=[])])
    for dataset in (inner, joined, dict(type='RepeatDataset', dataset=joined)):
        cfg = Config(dict(test_dataloader=dict(dataset=dataset)))
        assert task_module.test_dataset(cfg) == inner
    assert task_module.test_dataset(Config({})) == {}
