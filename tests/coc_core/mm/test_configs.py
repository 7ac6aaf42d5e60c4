"""Configs that cannot be read: a user's mistake is one sentence, an error in somebody's code keeps its stack trace."""

import pytest

from coc_core.errors import UserError
from coc_core.mm.configs import load_config


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
