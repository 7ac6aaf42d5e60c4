"""Python and commands on the pages: what can run is run, what cannot says why, and commands name what there is.

A block of Python is run with those before it on its page, unless a comment before it says otherwise:

    <!-- file: NAME -->      test_extending.py writes it to a file and trains with it
    <!-- config -->          a config, or a part of one
    <!-- not run: WHY -->    not here
"""

import re
import shlex
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from mmengine import registry

import coc_core
from coc_core.mm.configs import load_config

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / 'README.md', ROOT / 'CONTRIBUTING.md', ROOT / 'docker' / 'README.md', *sorted(ROOT.glob('docs/*.md'))]
REGISTRIES = [
    registry.HOOKS,
    registry.MODELS,
    registry.OPTIM_WRAPPER_CONSTRUCTORS,
    registry.VISBACKENDS,
    registry.WEIGHT_INITIALIZERS,
]
DIGITS = ROOT / 'configs' / 'classification' / 'coc-tiny_1xb32-12e_digits.py'


class Block(NamedTuple):
    mark: str
    code: str


def blocks(page):
    found = re.findall(r'(?:<!-- ([^\n]*?) -->\n)?```python\n(.*?)```', page.read_text(), re.DOTALL)
    return [Block(*block) for block in found]


def pages_with(belongs):
    return [pytest.param(page, id=page.stem) for page in PAGES if any(belongs(block) for block in blocks(page))]


def test_marks_are_known():
    for page in PAGES:
        for mark, _ in blocks(page):
            assert re.fullmatch(r'|file: \w+\.py|config|not run: .+', mark), f'{page.name}: {mark}'


@pytest.mark.parametrize('page', pages_with(lambda block: not block.mark))
def test_blocks_run(page, golden, tmp_path, monkeypatch):
    """In a folder with the weights that pages speak of, and with a model and inputs under the names that they use."""
    monkeypatch.chdir(tmp_path)
    # The plugins register once, when they are first imported: before what is undone.
    load_config(str(DIGITS))
    for kind in REGISTRIES:
        # What a page registers is gone after it.
        monkeypatch.setattr(kind, '_module_dict', dict(kind.module_dict))
    text = page.read_text()
    if 'coc_small.pth' in text:
        torch.save(golden.published_state_dict('coc_small'), 'coc_small.pth')
    if 'coc_small.safetensors' in text:
        coc_core.checkpoints.convert('coc_small.pth', 'coc_small.safetensors', 'timm')
    names = {'torch': torch, 'coc_core': coc_core, 'model': coc_core.create_model('coc_tiny').eval()}
    names |= {'images': torch.randn(1, 3, 64, 64), 'points': torch.randn(2, 1024, 3)}
    for mark, code in blocks(page):
        if not mark:
            exec(compile(code, page.name, 'exec'), names)


@pytest.mark.parametrize('page', pages_with(lambda block: block.mark == 'config'))
def test_configs_are_read_and_name_what_is_registered(page, tmp_path):
    (tmp_path / 'classification').symlink_to(DIGITS.parent)
    (tmp_path / '_base_').symlink_to(ROOT / 'configs' / '_base_')
    for mark, code in blocks(page):
        if mark != 'config':
            continue
        (tmp_path / 'mine.py').write_text(code if '_base_' in code else f'_base_ = {str(DIGITS)!r}\n{code}')
        load_config(str(tmp_path / 'mine.py'))
        names = {}
        exec(code, names)
        for name in types_in({key: value for key, value in names.items() if key != '__builtins__'}):
            assert any(kind.get(name) for kind in REGISTRIES), name


def types_in(value):
    if isinstance(value, dict):
        if 'type' in value:
            yield value['type']
        value = list(value.values())
    for part in value if isinstance(value, (list, tuple)) else []:
        yield from types_in(part)


def commands(page):
    """Yield the words of each command that starts a tool."""
    text = re.sub(r' \\\n +', ' ', page.read_text())
    for line in re.findall(r'^ {4,}(.+)$', text, re.MULTILINE):
        if re.search(r'(^| )(python (context-cluster/)?|)(tools|tests|benchmarks)/\S+\.(py|sh) ', line):
            yield shlex.split(line, comments=True)


@cache
def options():
    """Every option that a tool takes."""
    sources = [
        path for folder in ('tools', 'benchmarks', 'coc_core/mm', 'tests') for path in ROOT.glob(f'{folder}/**/*.py')
    ]
    return {option for path in sources for option in re.findall(r"'(--[\w-]+)'", path.read_text())}


@pytest.mark.parametrize('page', [pytest.param(page, id=page.stem) for page in PAGES if list(commands(page))])
def test_commands_name_what_there_is(page):
    for words in commands(page):
        for place, word in enumerate(words):
            name = word.removeprefix('context-cluster/')
            written = place and words[place - 1] == '--out'
            if re.match(r'(tools|tests|benchmarks|configs/\w+)/[^{*]+\.(py|sh)$', name) and not written:
                assert (ROOT / name).is_file(), f'{word} of {" ".join(words)}'
            if word.startswith('--') and words[0] not in ('docker', 'sbatch'):
                assert word.partition('=')[0] in options() or word == '--', f'{word} of {" ".join(words)}'
