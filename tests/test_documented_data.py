"""Commands on data of one's own: what new_config.py writes trains, tests and predicts, in all tasks."""

import re
import shlex
from pathlib import Path

import own_data
import pytest
import torch
from processes import run_tool

from coc_core import create_model
from coc_core.mm.configs import load_config
from coc_core.mm.models import build_model

ROOT = Path(__file__).parents[1]
MAKERS = {
    'classification': own_data.class_folders,
    'segmentation': own_data.label_maps,
    'pointcloud': own_data.point_files,
}
OTHER_BACKBONES = re.findall(
    r'builds it -->\n```python\n(.*?)```', (ROOT / 'docs' / 'model-zoo.md').read_text(), re.DOTALL
)
DOCUMENTED = {
    task: shlex.split(command.partition('  #')[0])
    for file in ('docs/own-data.md', 'docs/dense-tasks.md', 'docs/point-clouds.md')
    for command, task in re.findall(
        r'^ +python (tools/new_config.py --task (\w+).*)$', (ROOT / file).read_text(), re.MULTILINE
    )
}


@pytest.mark.parametrize('task', ['classification', 'detection', 'segmentation', 'pointcloud'])
def test_a_documented_command_writes_what_trains_tests_and_predicts(tmp_path, task):
    command = DOCUMENTED[task]
    data, out = (Path(command[command.index(f'--{name}') + 1]) for name in ('data', 'out'))
    if task == 'detection':
        own_data.coco(tmp_path / data.parent, name=data.name)
    else:
        MAKERS[task](tmp_path / data)
    (tmp_path / data.parent / data.stem).mkdir(exist_ok=True)
    (tmp_path / data.parent / data.stem / 'classes.txt').write_text('background\ncircle\nsquare\n')
    if '--checkpoint' in command:
        weights = create_model('coc_small', num_classes=3).state_dict()
        torch.save(weights, tmp_path / command[command.index('--checkpoint') + 1])

    def run(tool, *arguments):
        done = run_tool(ROOT / tool, *arguments, cwd=tmp_path, env={'CUDA_VISIBLE_DEVICES': ''})
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
        return done.stdout

    told = run(*command)
    train, test, predict = re.findall(r'^    python (.+)$', told, re.MULTILINE)
    assert Path(tmp_path, shlex.split(predict)[1]).is_file()
    text = (tmp_path / out).read_text()
    epochs = re.search(r'^epochs = (\d+)', text, re.MULTILINE)[1]
    text = text.replace(f'\nepochs = {epochs} ', '\nepochs = 1 ')
    (tmp_path / out).write_text(re.sub(r'\nimage_size = \d+', '\nimage_size = 64', text))
    assert len(OTHER_BACKBONES) == 2
    for beside in OTHER_BACKBONES:
        if f"'./{out.name}'" in beside:
            (tmp_path / out).with_stem('other').write_text(beside)
            config = str((tmp_path / out).with_stem('other'))
            assert type(build_model(load_config(config), config).backbone).__name__ == 'ResNet'
    run(*shlex.split(train))
    run(*shlex.split(test.replace(f'epoch_{epochs}.pth', 'epoch_1.pth')))
    assert list((tmp_path / 'work_dirs' / out.stem).glob('best_*_epoch_1.pth'))
    run(*shlex.split(predict.replace(f'epoch_{epochs}.pth', 'epoch_1.pth')))
