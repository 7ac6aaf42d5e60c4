"""The options that only testing has, each as the config's task understands it."""

from __future__ import annotations

import argparse
import os.path as osp
from pathlib import Path

import mmengine
from mmengine.config import Config, ConfigDict
from mmengine.dist import is_main_process
from mmengine.runner import Runner

from coc_core.checkpoints.reading import check_file
from coc_core.errors import UserError
from coc_core.files import replacing
from coc_core.mm.augmentation import augmentation
from coc_core.mm.data_checks.inspection import innermost_datasets
from coc_core.mm.task import add_evaluator, task_of, test_dataset

_METRIC_ENDINGS = ('.json', '.yaml', '.yml', '.pkl')


def apply_options(cfg: Config, args: argparse.Namespace) -> None:
    """Write the checkpoint, ``--show``, ``--show-dir``, ``--tta``, ``--out`` and ``--report`` into a config.

    Raises:
        UserError: The config cannot be tested, or its task has no such option.
    """
    for name in ('test_dataloader', 'test_cfg', 'test_evaluator'):
        if cfg.get(name) is None:
            raise UserError(f'{args.config} cannot be tested: it has no {name}.')
    check_file(Path(args.checkpoint).expanduser())
    cfg.load_from = args.checkpoint
    cfg.resume = False
    _apply_out(cfg, args)
    if args.show or args.show_dir:
        # mmdet would put a relative folder below the work folder's newest subfolder.
        folder = osp.abspath(args.show_dir) if args.show_dir else None
        task_of(cfg).show_predictions(
            cfg, window=args.show, folder=folder, interval=args.interval, wait_time=args.wait_time
        )
    if args.tta:
        _augment(cfg)
    if args.report:
        _report(cfg, args)


def _report(cfg: Config, args: argparse.Namespace) -> None:
    """Have an evaluator of the task write what went wrong."""
    task = task_of(cfg)
    kind = task.report()
    if kind is None:
        raise UserError(
            f'--report: the scope {task.scope} has none; classification, detection, segmentation and point clouds have '
            'one, and a task of your own gets one by `report` of its Task.'
        )
    pipeline = test_dataset(cfg).get('pipeline') or []
    title = f'{Path(args.config).stem}, {Path(args.checkpoint).name}'
    add_evaluator(cfg, dict(type=kind, folder=osp.abspath(args.report), title=title, pipeline=pipeline))


def _apply_out(cfg: Config, args: argparse.Namespace) -> None:
    if args.out_item and not args.out:
        raise UserError('--out-item needs --out FILE.')
    if not args.out:
        return
    task = task_of(cfg)
    endings = _METRIC_ENDINGS if args.out_item == 'metrics' else task.prediction_endings
    if endings and not args.out.endswith(endings):
        raise UserError(f'--out {args.out} must end in {" or ".join(endings)}.')
    if args.out_item != 'metrics':
        task.dump_predictions(cfg, args.out)


def _augment(cfg: Config) -> None:
    """Wrap the model and its test pipeline for test-time augmentation, as the task's stock tool does."""
    model, pipeline = augmentation(cfg)
    cfg.model = ConfigDict(**model, module=cfg.model)
    # What wraps or joins others has no pipeline of its own.
    for dataset in innermost_datasets(cfg, 'test'):
        dataset['pipeline'] = pipeline  # type: ignore[index]


def save_metrics(metrics: dict[str, float], args: argparse.Namespace) -> None:
    """Save the metrics where ``--out-item metrics`` asks for them.

    Raises:
        UserError: The file cannot be written.
    """
    if args.out and args.out_item == 'metrics' and is_main_process():
        with replacing(Path(args.out)) as beside:
            mmengine.dump(metrics, beside)


def compare_with_zoo(runner: Runner, metrics: dict[str, float], config: str) -> None:
    """Put the metrics beside what the model zoo says of this config (``metafile.yml`` in its folder), if it does."""
    path = Path(config).with_name('metafile.yml')
    entries = mmengine.load(path)['Models'] if path.is_file() else []
    entry = next((entry for entry in entries if entry['Name'] == Path(config).stem and entry.get('Results')), None)
    if entry is None:
        return
    measured = ', '.join(f'{name} {value:.4g}' for name, value in metrics.items())
    listed = ', '.join(f'{k} {v}' for result in entry['Results'] for k, v in result['Metrics'].items())
    runner.logger.info(f'This test: {measured}. Model zoo: {listed} ({entry["Metadata"]["Source"]}).')
