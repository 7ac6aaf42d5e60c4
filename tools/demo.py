#!/usr/bin/env python3
"""Train Context Cluster on real digits with the project's own tools, test the checkpoint and say what came out.

make demo [TASK=classification] [DEMO_ARGS=--retrain]
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from mmengine.config import Config

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Task:
    """What the demo of one task runs, and the metric it ends with."""

    config: str
    layout: str
    metric: str
    title: str
    next_steps: tuple[str, ...]


TASKS = {
    'classification': Task(
        config='configs/classification/coc-tiny_1xb32-12e_digits.py',
        layout='imagenet',
        metric='accuracy/top1',
        title='top-1 accuracy on the 360 held-back digits',
        next_steps=(
            'source .venv/bin/activate',
            'tools/dist_train.sh configs/classification/coc-small_8xb128_in1k.py 8   # ImageNet, see README.md',
            'python tools/train.py configs/classification/coc-tiny_1xb32-12e_digits.py '
            '--cfg-options model.backbone.center_grid=3   # change one thing and train again',
        ),
    )
}


def run(*command: str | Path) -> None:
    """Run a command in the project's folder; stop the demo where it fails."""
    print('$', ' '.join(str(part) for part in command), flush=True)
    done = subprocess.run([str(part) for part in command], cwd=ROOT)
    if done.returncode:
        sys.exit(f'demo: this command failed: {" ".join(str(part) for part in command)}')


def train_and_test(task: Task, work_dir: Path) -> tuple[Path, dict[str, float]]:
    """Train unless it is done already, going on where an interrupted run stopped; return checkpoint and metrics."""
    epochs = Config.fromfile(ROOT / task.config).train_cfg.max_epochs
    checkpoint = work_dir / f'epoch_{epochs}.pth'
    run(sys.executable, 'tools/make_digits_data.py', '--layout', task.layout)
    if (ROOT / checkpoint).exists():
        print(f'{checkpoint} is trained already; make demo DEMO_ARGS=--retrain trains again', flush=True)
    else:
        start = time.monotonic()
        run('tools/dist_train.sh', task.config, '1', '--work-dir', work_dir, '--resume', 'auto')
        print(f'Trained in {(time.monotonic() - start) / 60:.1f} minutes.', flush=True)
    metrics = work_dir / 'metrics.json'
    run(
        sys.executable, 'tools/test.py', task.config, checkpoint,
        '--work-dir', work_dir / 'test', '--out', metrics, '--out-item', 'metrics',
    )  # fmt: skip
    return checkpoint, json.loads((ROOT / metrics).read_text())


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--task', default='classification')
    parser.add_argument('--retrain', action='store_true', help='train again although a checkpoint is there')
    args = parser.parse_args()
    if args.task not in TASKS:
        sys.exit(f'demo: TASK={args.task} is unknown: choose one of {", ".join(TASKS)}.')
    task = TASKS[args.task]
    work_dir = Path('work_dirs') / 'demo' / args.task
    if args.retrain:
        shutil.rmtree(ROOT / work_dir, ignore_errors=True)
    checkpoint, metrics = train_and_test(task, work_dir)
    print(f'\n{task.title}: {metrics[task.metric]:.2f} %')
    print(f'checkpoint: {checkpoint}')
    print('next:', *task.next_steps, sep='\n  ')


if __name__ == '__main__':
    try:
        main()
    except KeyboardInterrupt:
        sys.exit('\ndemo: interrupted; run it again to go on.')
