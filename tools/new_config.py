#!/usr/bin/env python
"""Write the config of a training on data of your own, and check the data.

python tools/new_config.py --task classification --data FOLDER --out configs/NAME.py [--checkpoint FILE]

Exit code 0: the config is written, and what comes next is printed; 1: the data has errors; 2: a mistake in the command.
Where it is not 0, nothing was written.
"""

from __future__ import annotations

import argparse
import os
import sys
from functools import partial
from importlib import import_module
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from coc_core.mm.requirements import quiet_imports, require

require('mmengine')

from coc_core.errors import UserError
from coc_core.mm.cli.options import add_debug_option
from coc_core.mm.cli.start import run_tool
from coc_core.mm.configs import load_config
from coc_core.mm.data_checks.reports import PHASES, reports_of
from coc_core.mm.own_data.class_lists import read_classes
from coc_core.mm.own_data.config_text import shell_word
from coc_core.mm.own_data.fitting import this_machine
from coc_core.mm.own_data.plan import DataRequest, Plan
from coc_core.mm.own_data.writing import check_absent, written
from coc_core.mm.task import task_of

TASKS = {
    'classification': ('mmpretrain_plugin', 'mmpretrain'),
    'detection': ('mmdet_plugin', 'mmdet'),
    'segmentation': ('mmseg_plugin', 'mmseg'),
    'pointcloud': ('pointcloud', 'pointcloud'),
}


class DataError(UserError):
    """The data check found errors."""

    exit_code = 1


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--task', required=True, choices=TASKS)
    parser.add_argument(
        '--data',
        required=True,
        type=Path,
        help='class folders, with or without train and val (classification); a COCO file or the folder of one or two '
        '(detection); a folder with images and label maps (segmentation); an HDF5 file, or class folders of '
        'point files (pointcloud)',
    )
    parser.add_argument('--out', required=True, type=Path, help='the config to write, e.g. configs/pets.py')
    parser.add_argument('--arch', help='the variant (default: coc_small; of point clouds pointmlp_coc)')
    parser.add_argument('--checkpoint', help='weights to start from (default: random ones, and a longer training)')
    parser.add_argument(
        '--classes', nargs='+', metavar='NAME', help='names of the classes by label, or a text file with one a line'
    )
    parser.add_argument('--overwrite', action='store_true', help='replace a config of that name')
    add_debug_option(parser)
    return parser.parse_args()


def new_config(args: argparse.Namespace) -> None:
    """Write a config, check its data and print what comes next."""
    request = DataRequest(
        data=args.data,
        out=args.out,
        arch=args.arch,
        checkpoint=args.checkpoint,
        classes=None if args.classes is None else tuple(read_classes(args.classes)),
        machine=this_machine(),
    )
    if request.out.suffix != '.py':
        raise UserError(f'--out {request.out}: a config is a file of Python. Let its name end in .py.')
    plugin, scope = TASKS[args.task]
    with quiet_imports():
        import_module(plugin)
    if not args.overwrite:
        check_absent({request.out: None})
    plan = task_of({'default_scope': scope}).plan(request)
    files = {**plan.files, request.out: partial(_write_text, plan.text)}
    if plan.files and request.folder.resolve() == request.data.resolve():
        raise UserError(
            f'--out {request.out}: its files would lie in {request.folder}, among your data: name another config.'
        )
    if not args.overwrite:
        check_absent(files)
    print(plan.summary)
    for note in plan.notes:
        print(f'note: {note}')
    with written(files):
        check(str(request.out))
    print(next_steps(args.task, request, plan))


def _write_text(text: str, path: Path) -> None:
    path.write_text(text, encoding='utf-8')


def check(config: str) -> None:
    """Check the data of a config as `check_data.py` does.

    Raises:
        DataError: There are errors in it.
    """
    errors = 0
    for report in reports_of(load_config(config), PHASES, workers=os.cpu_count()):
        print(report)
        errors += report.errors
    if errors:
        raise DataError(
            f'The data has {errors} errors, which stand above: mend them and start again; nothing was written.'
        )


def next_steps(task: str, request: DataRequest, plan: Plan) -> str:
    """Return the commands that train, test and use a model of the config."""
    config, name = shell_word(request.out), request.out.stem
    checkpoint = shell_word(Path('work_dirs', name, f'epoch_{plan.epochs}.pth'))
    return f"""
{config} is written for {request.machine.name}. Next:

    python tools/train.py {config}
    python tools/test.py {config} {checkpoint}
    python tools/predict.py {shell_word(plan.example)} --config {config} --checkpoint {checkpoint}"""


if __name__ == '__main__':
    sys.exit(run_tool(new_config, parse_args()))
