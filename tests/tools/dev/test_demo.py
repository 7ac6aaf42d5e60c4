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


@pytest.mark.parametrize('has', [True, False])
def test_segmentation_trains_in_bfloat16_where_the_processor_has_it(monkeypatch, tmp_path, has):
    commands = []
    monkeypatch.setattr(demo, 'ROOT', tmp_path)
    monkeypatch.setattr(demo, 'last_checkpoint', lambda _: 'last.pth')
    monkeypatch.setattr(demo, 'processor_has_bfloat16', lambda: has)
    monkeypatch.setattr(demo, 'run', lambda *command: commands.append([str(word) for word in command]))
    (tmp_path / 'metrics.json').write_text('{"mIoU": 1.0}')
    for task in ('segmentation', 'detection'):
        demo.train_and_test(demo.DEMOS[task], Path())
    trainings = [command for command in commands if command[0] == 'tools/dist_train.sh']
    assert [command[-2:] == ['--amp-dtype', 'bfloat16'] for command in trainings] == [has, False]
