"""The commands that a demo proposes at its end."""

import importlib.util
import shlex
import sys
from pathlib import Path

import pytest

from coc_core.mm.configs import load_config
from coc_core.mm.option_values import OptionText

ROOT = Path(__file__).parents[3]
spec = importlib.util.spec_from_file_location('demo', ROOT / 'tools' / 'dev' / 'demo.py')
demo = importlib.util.module_from_spec(spec)
# Dataclasses look their module up.
sys.modules['demo'] = demo
spec.loader.exec_module(demo)


@pytest.mark.parametrize('task', demo.DEMOS)
def test_a_demo_proposes_tools_and_changes_that_are_there(task):
    config = demo.DEMOS[task].config
    activate, *commands = demo.next_steps(demo.DEMOS[task], Path('a.pth'), Path('work'))
    assert activate == 'source .venv/bin/activate' and len(commands) == 3
    for command in commands:
        words = shlex.split(command, comments=True)
        words = words[1:] if words[0] == 'python' else words
        assert (ROOT / words[0]).is_file() and config in words
        if '--cfg-options' in words:
            key, _, value = words[-1].partition('=')
            load_config(str(ROOT / config), {key: OptionText(value)})
