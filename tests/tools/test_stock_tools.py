"""mmpretrain's own tools and inferencer, as installed, run this project's configs and checkpoints unchanged."""

import os
import re
import subprocess
import sys
from pathlib import Path

import mmpretrain
import pytest
from processes import run_tool

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / 'configs' / 'classification' / 'coc-tiny_1xb32-12e_digits.py'
STOCK = Path(mmpretrain.__file__).parent / '.mim' / 'tools'
# Two steps of training and a handful of images: whether it runs, not how well.
SMALL = ('train_cfg.max_epochs=1', 'train_dataloader.dataset.indices=64', 'val_dataloader.dataset.indices=32')


def run(script, *arguments, data_root, options=SMALL):
    roots = [f'{loader}_dataloader.dataset.data_root={data_root}' for loader in ('train', 'val', 'test')]
    command = [sys.executable, script, *arguments, '--cfg-options', *roots, *options]
    environment = {**os.environ, 'PYTHONPATH': str(ROOT)}
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return done.stdout + done.stderr


@pytest.fixture(scope='module')
def digits(tmp_path_factory):
    out = tmp_path_factory.mktemp('digits')
    tool = ROOT / 'tools' / 'dataset_converters' / 'make_digits_data.py'
    assert run_tool(tool, '--out', out, '--layout', 'imagenet').returncode == 0
    return out / 'imagenet'


@pytest.fixture(scope='module')
def checkpoint(digits, tmp_path_factory):
    work_dir = tmp_path_factory.mktemp('stock')
    run(STOCK / 'train.py', CONFIG, '--work-dir', work_dir, data_root=digits)
    return work_dir / 'epoch_1.pth'


def test_stock_train_and_test(digits, checkpoint, tmp_path):
    out = run(
        STOCK / 'test.py', CONFIG, checkpoint, '--work-dir', tmp_path, data_root=digits,
        options=('test_dataloader.dataset.indices=32',),
    )  # fmt: skip
    assert 'accuracy/top1' in out


def test_our_test_tool_gives_the_stock_metric(digits, checkpoint, tmp_path):
    options = ('test_dataloader.dataset.indices=90',)

    def output(script, *more):
        return run(script, CONFIG, checkpoint, '--work-dir', tmp_path, *more, data_root=digits, options=options)

    def accuracy(out):
        return out.split('accuracy/top1:')[1].split()[0]

    ours = output(ROOT / 'tools' / 'test.py', '--report', tmp_path / 'report')
    assert accuracy(ours) == accuracy(output(STOCK / 'test.py'))
    wrong = round(90 * (1 - float(accuracy(ours)) / 100))
    report = (tmp_path / 'report' / 'report.html').read_text()
    assert f'90 samples, {wrong} of them wrong' in report and report.count('data:image/jpeg') == min(wrong, 24)
    assert re.search(r'This test: accuracy/top1 [\d.]+. Model zoo: Top 1 Accuracy 98.33 \(measured by this pr', ours)


def test_inferencer(digits, checkpoint):
    from mmpretrain import ImageClassificationInferencer

    inferencer = ImageClassificationInferencer(model=str(CONFIG), pretrained=str(checkpoint), device='cpu')
    image = next((digits / 'val' / '3').glob('*.png'))
    (result,) = inferencer(str(image))
    assert result['pred_scores'].shape == (10,) and result['pred_class'] in set('0123456789')
