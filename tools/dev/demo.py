#!/usr/bin/env python3
"""Train Context Cluster on real digits with the project's own tools, test the checkpoint and say what came out.

make demo [TASK=classification|detection|segmentation|pointcloud] [DEMO_ARGS=--retrain]
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from coc_core.mm.configs import load_config
from coc_core.mm.mixed_precision import processor_has_bfloat16

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Demo:
    """What the demo of one task runs, and the metric it ends with.

    Attributes:
        config: The config.
        layout: The data that tools/dataset_converters/make_digits_data.py makes for it.
        metric: The metric's name in what tools/test.py saves.
        title: The metric in words.
        data: What to predict afterwards.
        look: The command that shows what was learned.
        change: An option that is worth a training of its own.
        percent: What makes the metric a percentage.
        starts_from: The task whose demo makes the checkpoint that the config starts from.
        bfloat16: Whether to train in bfloat16 where the processor has it.
    """

    config: str
    layout: str
    metric: str
    title: str
    data: str
    look: str
    change: str = 'model.backbone.center_grid=3'
    percent: float = 1.0
    starts_from: str | None = None
    bfloat16: bool = False


_LOOK = 'python tools/test.py {config} {checkpoint} --show-dir pictures'
_NEXT_STEPS = (
    'source .venv/bin/activate',
    '{look}',
    'python tools/predict.py {data} --config {config} --checkpoint {checkpoint} --out {work_dir}/predictions',
    'tools/dist_train.sh {config} 1 --work-dir work_dirs/{change} --cfg-options {change}   # one change, trained again',
)
DEMOS = {
    'classification': Demo(
        config='configs/classification/coc-tiny_1xb32-12e_digits.py',
        layout='imagenet',
        metric='accuracy/top1',
        title='top-1 accuracy on the 360 held-back digits',
        data='data/digits/imagenet/val',
        look='python tools/analysis_tools/visualize_clusters.py data/digits/imagenet/val/8 --size 256 '
        '--config {config} --checkpoint {checkpoint}   # into pictures/',
    ),
    'detection': Demo(
        config='configs/detection/mask-rcnn_coc-tiny-4_fpn_1xb4-8e_digits.py',
        layout='coco',
        metric='coco/segm_mAP_50',
        title='mask AP at IoU 0.5 on the 150 scenes of held-back digits',
        percent=100.0,
        starts_from='classification',
        data='data/digits/coco/val2017',
        look=_LOOK,
    ),
    'segmentation': Demo(
        config='configs/segmentation/fpn_coc-tiny-4_1xb8-2k_digits.py',
        layout='ade20k',
        metric='mIoU',
        title='mIoU over the background and ten digits on the 150 scenes of held-back digits',
        starts_from='classification',
        data='data/digits/ade20k/images/validation',
        look=_LOOK,
        bfloat16=True,
    ),
    'pointcloud': Demo(
        config='configs/pointcloud/pointmlp-coc_1xb16-12e_digits.py',
        layout='scanobjectnn',
        metric='OA',
        title='overall accuracy on the 360 held-back digits as point clouds',
        data='data/digits/scanobjectnn/main_split',
        look='python tools/analysis_tools/draw_points.py {config} {checkpoint} --color cluster',
        change='model.backbone.neighbors=8',
    ),
}


def run(*command: str | Path) -> None:
    """Run a command in the project's folder; stop the demo where it fails."""
    print('$', ' '.join(str(part) for part in command), flush=True)
    done = subprocess.run([str(part) for part in command], cwd=ROOT)
    if done.returncode:
        sys.exit(f'demo: this command failed: {" ".join(str(part) for part in command)}')


def last_checkpoint(demo: Demo) -> str:
    """Return the name of the checkpoint that training ends with."""
    length = load_config(str(ROOT / demo.config)).train_cfg
    return f'epoch_{length.max_epochs}.pth' if 'max_epochs' in length else f'iter_{length.max_iters}.pth'


def work_dir_of(name: str) -> Path:
    """Return the folder of a task's demo, from the project's folder."""
    return Path('work_dirs') / 'demo' / name


def train_and_test(demo: Demo, work_dir: Path) -> tuple[Path, dict[str, float]]:
    """Train unless it is done already, going on where an interrupted run stopped; return checkpoint and metrics."""
    checkpoint = work_dir / last_checkpoint(demo)
    run(sys.executable, 'tools/dataset_converters/make_digits_data.py', '--layout', demo.layout)
    if (ROOT / checkpoint).exists():
        print(f'{checkpoint} is trained already; make demo DEMO_ARGS=--retrain trains again', flush=True)
    else:
        load, cores = os.getloadavg()[0], os.cpu_count() or 1
        if load > 0.5 * cores:
            print(f'This machine is busy (load {load:.1f} on {cores} cores): training takes longer.', flush=True)
        start = time.monotonic()
        precision = ('--amp-dtype', 'bfloat16') if demo.bfloat16 and processor_has_bfloat16() else ()
        run('tools/dist_train.sh', demo.config, '1', '--work-dir', work_dir, '--resume', 'auto', *precision)
        print(f'Trained in {(time.monotonic() - start) / 60:.1f} minutes.', flush=True)
    metrics = work_dir / 'metrics.json'
    run(
        sys.executable, 'tools/test.py', demo.config, checkpoint,
        '--work-dir', work_dir / 'test', '--out', metrics, '--out-item', 'metrics',
    )  # fmt: skip
    return checkpoint, json.loads((ROOT / metrics).read_text())


def tell_of_clusters(folder: Path) -> None:
    """Name a film and the contact sheet of a training that watched its clusters; clouds have none to show."""
    films = sorted(folder / path.name for path in (ROOT / folder).glob('stage*.gif'))
    if films:
        print(f'how clusters formed: {films[len(films) // 2]} (and {len(films) - 1} more films beside it)')
        print(f'clusters of every layer and head: {folder / "contact_sheet.png"}')


def next_steps(demo: Demo, checkpoint: Path, work_dir: Path) -> list[str]:
    """Return the commands to propose at a demo's end."""
    names = dict(config=demo.config, checkpoint=checkpoint, work_dir=work_dir, data=demo.data, change=demo.change)
    look = demo.look.format(**names)
    return [step.format(**names, look=look) for step in _NEXT_STEPS]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--task', default='classification')
    parser.add_argument('--retrain', action='store_true', help='train again although a checkpoint is there')
    args = parser.parse_args()
    if args.task not in DEMOS:
        sys.exit(f'demo: TASK={args.task} is unknown: choose one of {", ".join(DEMOS)}.')
    demo = DEMOS[args.task]
    work_dir = work_dir_of(args.task)
    start = demo.starts_from
    if start and not (ROOT / work_dir_of(start) / last_checkpoint(DEMOS[start])).exists():
        print(f'{args.task} starts from the checkpoint of {start}, which comes first.', flush=True)
        train_and_test(DEMOS[start], work_dir_of(start))
    if args.retrain:
        shutil.rmtree(ROOT / work_dir, ignore_errors=True)
    checkpoint, metrics = train_and_test(demo, work_dir)
    print(f'\n{demo.title}: {demo.percent * metrics[demo.metric]:.2f} %')
    print(f'checkpoint: {checkpoint}')
    tell_of_clusters(work_dir / 'clusters')
    print('next:', *next_steps(demo, checkpoint, work_dir), sep='\n  ')


if __name__ == '__main__':
    try:
        main()
    except KeyboardInterrupt:
        sys.exit('\ndemo: interrupted; run it again to go on.')
