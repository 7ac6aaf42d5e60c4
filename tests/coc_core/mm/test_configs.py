"""Configs that cannot be read: a user's mistake is one sentence, an error in somebody's code keeps its stack trace."""

import pytest

from coc_core.errors import UserError
from coc_core.mm.configs import load_config
from coc_core.mm.option_values import OptionText


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('model = dict(', 'SyntaxError in line 1'),
        ("_base_ = 'nowhere.py'", 'nowhere.py'),
        ("_base_ = 'mmpretrain::lenet/nowhere.py'", 'nowhere.py'),
        ("custom_imports = dict(imports=['no_such_module'])", 'no_such_module'),
    ],
)
def test_invalid_config(tmp_path, text, message):
    config = tmp_path / 'broken.py'
    config.write_text(text)
    with pytest.raises(UserError, match='is not valid: ') as caught:
        load_config(str(config))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ('text', 'module', 'kind'),
    [
        ('a = 1 / 0', '', ZeroDivisionError),
        ("a = open('absent.txt')", '', FileNotFoundError),
        ("custom_imports = dict(imports=['own_module'])", 'import no_such_module', ImportError),
        ("custom_imports = dict(imports=['own_module'])", "open('absent.txt')", FileNotFoundError),
        ("custom_imports = dict(imports=['own_module'])", 'def f(:', SyntaxError),
    ],
)
def test_an_error_in_a_users_code_is_no_sentence(tmp_path, monkeypatch, capsys, text, module, kind):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / 'own_module.py').write_text(module)
    config = tmp_path / 'config.py'
    config.write_text(text)
    with pytest.raises(kind) as caught:
        load_config(str(config))
    assert not isinstance(caught.value, UserError)
    assert capsys.readouterr().err == f'error while reading the config {config}:\n'


def test_a_name_near_a_missing_config_is_proposed(tmp_path):
    (tmp_path / 'coc-tiny.py').write_text('')
    with pytest.raises(UserError, match=r"does not exist. Did you mean '.*coc-tiny.py'\?"):
        load_config(str(tmp_path / 'coc-tinny.py'))
    with pytest.raises(UserError, match='There is no folder .*nowhere either'):
        load_config(str(tmp_path / 'nowhere' / 'a.py'))


def test_what_a_plugin_says_of_its_package_is_told(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    check = "from coc_core.mm.requirements import check_openmmlab\ncheck_openmmlab('mmrotate')\n"
    (tmp_path / 'rotating_plugin.py').write_text(check)
    (tmp_path / 'config.py').write_text("custom_imports = dict(imports=['rotating_plugin'])")
    with pytest.raises(UserError, match='^mmrotate is not installed: run `make setup` or'):
        load_config(str(tmp_path / 'config.py'))


CONFIG = """
train_dataloader = dict(
    dataset=dict(
        type='CustomDataset', data_root='data/digits', ann_file='2022', metainfo=dict(classes=('cat', 'dog')),
        pipeline=[dict(type='LoadImageFromFile'), dict(type='Resize', scale=(64, 64), keep_ratio=True)],
    ),
)
train_pipeline = train_dataloader['dataset']['pipeline']
param_scheduler = [dict(type='MultiStepLR', milestones=[8, 11])]
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.1), clip_grad=None)
train_cfg = dict(max_epochs=12)
val_evaluator = (dict(type='Accuracy', topk=1),)
"""


@pytest.fixture
def config(tmp_path):
    path = tmp_path / 'config.py'
    path.write_text(CONFIG)
    return str(path)


@pytest.mark.parametrize(
    ('option', 'value'),
    [
        ('train_dataloader.dataset.data_root=data/my data', 'data/my data'),
        ('train_dataloader.dataset.data_root=data/a,b', 'data/a,b'),
        ('train_dataloader.dataset.ann_file=2023', '2023'),
        ("train_dataloader.dataset.metainfo.classes=['black cat','dog']", ['black cat', 'dog']),
        ('train_dataloader.dataset.pipeline.1.scale=(128,128)', (128, 128)),
        ("train_dataloader.dataset.pipeline.1={'scale': 32}", {'type': 'Resize', 'scale': 32, 'keep_ratio': True}),
        ("train_dataloader.dataset.pipeline.1={'_delete_': True, 'type': 'Flip'}", {'type': 'Flip'}),
        ("train_dataloader.dataset.pipeline=[{'type': 'LoadImageFromFile'}]", [{'type': 'LoadImageFromFile'}]),
        ('param_scheduler.0.milestones.1=10', 10),
        ("param_scheduler={'type': 'ConstantLR'}", {'type': 'ConstantLR'}),
        ("optim_wrapper.clip_grad={'max_norm': 1}", {'max_norm': 1}),
        ("optim_wrapper.optimizer={'lr': 1}", {'type': 'SGD', 'lr': 1.0}),
        ('val_evaluator.0.topk=(1,5)', (1, 5)),
        ('train_cfg=None', None),
        ('load_from=epoch_1.pth', 'epoch_1.pth'),
        ('default_hooks.checkpoint.interval=2', 2),
    ],
)
def test_an_option_changes_its_entry_alone(config, option, value):
    key, _, text = option.partition('=')
    changed = load_config(config, {key: OptionText(text)})
    untouched = load_config(config)
    assert changed.train_pipeline == untouched.train_pipeline
    assert _value(changed, key) == value
    for other in set(untouched) - {key.split('.')[0]}:
        assert changed[other] == untouched[other]


def _value(cfg, key):
    for name in key.split('.'):
        cfg = cfg[int(name)] if isinstance(cfg, (list, tuple)) else cfg[name]
    return cfg


def test_dicts_of_an_option_have_their_entries_as_attributes(config):
    pipeline = OptionText("[{'type': 'Resize', 'scale': 8}]")
    cfg = load_config(config, {'train_dataloader.dataset.pipeline': pipeline})
    assert cfg.train_dataloader.dataset.pipeline[0].scale == 8


@pytest.mark.parametrize(
    ('option', 'sentence'),
    [
        ('train_cfg.max_epochs=ten', "train_cfg.max_epochs is a number (12), and 'ten' is a string: write a number."),
        (
            "optim_wrapper={'optimizer': {'lr': 'x'}}",
            "optim_wrapper.optimizer.lr is a number (0.1), and 'x' is a string",
        ),
        ("train_cfg={'max_epoch': 3}", "train_cfg has no key 'max_epoch'. Did you mean 'max_epochs'"),
        ('param_scheduler.-1.milestones=[1]', "param_scheduler has 1 items, and no item '-1'."),
    ],
)
def test_an_option_that_does_not_fit_is_one_sentence(config, option, sentence):
    key, _, text = option.partition('=')
    with pytest.raises(UserError, match=f'^--cfg-options {key}') as caught:
        load_config(config, {key: OptionText(text)})
    assert sentence in str(caught.value)


def test_what_packages_say_of_optional_parts_is_passed_over(tmp_path, monkeypatch, capsys):
    (tmp_path / 'talkative.py').write_text("print('Could not import OneDL')\nprint('mine')\n")
    (tmp_path / 'config.py').write_text("custom_imports = dict(imports=['talkative'])\n")
    monkeypatch.syspath_prepend(tmp_path)
    load_config(str(tmp_path / 'config.py'))
    assert capsys.readouterr().out == 'mine\n'
