"""The options that only testing has, each as the stock tool of the config's task understands it."""

from __future__ import annotations

import argparse
import os.path as osp
from copy import deepcopy
from pathlib import Path
from typing import Any

import mmengine
from mmengine.config import Config, ConfigDict
from mmengine.dist import is_main_process
from mmengine.evaluator import DumpResults
from mmengine.runner import Runner

from coc_core.mm.checkpoint_hook import CheckpointFitHook
from coc_core.mm.errors import LaunchError
from coc_core.mm.resuming import check_checkpoint_file

_FLIPS = [dict(type='RandomFlip', prob=1.0), dict(type='RandomFlip', prob=0.0)]
_DEFAULT_TTA_MODELS: dict[str, dict[str, Any]] = {
    'mmpretrain': dict(type='mmpretrain.AverageClsScoreTTA'),
    'mmdet': dict(type='DetTTAModel', tta_cfg=dict(nms=dict(type='nms', iou_threshold=0.5), max_per_img=100)),
}
_DETECTION_KEYS = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor', 'flip', 'flip_direction')


def apply(cfg: Config, args: argparse.Namespace) -> None:
    """Writes the checkpoint, `--show`, `--show-dir`, `--tta` and a segmentation's `--out` into a config.

    Raises:
        LaunchError: The config cannot be tested, or its task has no such option.
    """
    for name in ('test_dataloader', 'test_cfg', 'test_evaluator'):
        if cfg.get(name) is None:
            raise LaunchError(f'{args.config} cannot be tested: it has no {name}.')
    check_checkpoint_file(Path(args.checkpoint).expanduser())
    cfg.load_from = args.checkpoint
    cfg.resume = False
    _check_out(cfg, args)
    if args.show or args.show_dir:
        _show(cfg, args)
    if args.tta:
        _augment(cfg)
    if args.out and args.out_item != 'metrics' and cfg.get('default_scope') == 'mmseg':
        evaluators = cfg.test_evaluator if isinstance(cfg.test_evaluator, list) else [cfg.test_evaluator]
        for evaluator in evaluators:
            evaluator.update(output_dir=args.out, keep_results=True)


def prepare_runner(runner: Runner, args: argparse.Namespace) -> None:
    """Has another model's checkpoint refused, and the predictions saved to `--out`."""
    runner.register_hook(CheckpointFitHook(args.checkpoint))
    scope = runner.cfg.get('default_scope')
    if not args.out or args.out_item == 'metrics' or scope == 'mmseg':
        return
    if scope == 'mmdet':
        # Importing mmdet where another task is tested would ask for its compiled operators.
        from mmdet.evaluation import DumpDetResults

        runner.test_evaluator.metrics.append(DumpDetResults(out_file_path=args.out))
    else:
        runner.test_evaluator.metrics.append(DumpResults(out_file_path=args.out))


def save_metrics(metrics: dict[str, float], args: argparse.Namespace) -> None:
    """Saves the metrics where `--out-item metrics` asks for them."""
    if args.out and args.out_item == 'metrics' and is_main_process():
        Path(args.out).parent.mkdir(parents=True, exist_ok=True)
        mmengine.dump(metrics, args.out)


def compare_with_zoo(runner: Runner, metrics: dict[str, float], config: str) -> None:
    """Puts the metrics beside what the model zoo says of this config (``metafile.yml`` in its folder), if it does."""
    path = Path(config).with_name('metafile.yml')
    entries = mmengine.load(path)['Models'] if path.is_file() else []
    entry = next((entry for entry in entries if entry['Name'] == Path(config).stem and entry.get('Results')), None)
    if entry is None:
        return
    measured = ', '.join(f'{name} {value:.4g}' for name, value in metrics.items())
    listed = ', '.join(f'{k} {v}' for result in entry['Results'] for k, v in result['Metrics'].items())
    runner.logger.info(f'This test: {measured}. Model zoo: {listed} ({entry["Metadata"]["Source"]}).')


def _check_out(cfg: Config, args: argparse.Namespace) -> None:
    if args.out_item and not args.out:
        raise LaunchError('--out-item needs --out FILE.')
    if not args.out or (args.out_item != 'metrics' and cfg.get('default_scope') == 'mmseg'):
        return
    endings = ('.json', '.yaml', '.yml', '.pkl') if args.out_item == 'metrics' else ('.pkl', '.pickle')
    if not args.out.endswith(endings):
        raise LaunchError(f'--out {args.out} must end in {" or ".join(endings)}.')


def _show(cfg: Config, args: argparse.Namespace) -> None:
    hook = cfg.get('default_hooks', {}).get('visualization')
    scope = cfg.get('default_scope')
    if hook is None or scope not in ('mmpretrain', 'mmdet', 'mmseg'):
        raise LaunchError(
            f'--show and --show-dir: the task of {args.config} has no pictures to show '
            '(its default_hooks have no visualization).'
        )
    # mmdet would put a relative folder below the work folder's newest subfolder.
    folder = osp.abspath(args.show_dir) if args.show_dir else None
    hook.update(show=args.show, wait_time=args.wait_time)
    if scope == 'mmpretrain':
        hook.update(enable=True, out_dir=folder, interval=args.interval)
        return
    hook.draw = True
    if args.show_dir and scope == 'mmdet':
        hook.test_out_dir = folder
    elif args.show_dir:
        cfg.visualizer.save_dir = folder


def _augment(cfg: Config) -> None:
    """Wraps the model and its test pipeline for test-time augmentation, as the task's stock tool does."""
    scope = cfg.get('default_scope')
    dataset = cfg.test_dataloader.dataset
    while 'dataset' in dataset:
        dataset = dataset.dataset
    if scope not in _DEFAULT_TTA_MODELS and not (cfg.get('tta_model') and cfg.get('tta_pipeline')):
        raise LaunchError('--tta: this config sets no tta_model and tta_pipeline, and its task has no default.')
    model = cfg.get('tta_model') or _DEFAULT_TTA_MODELS[str(scope)]
    pipeline = cfg.get('tta_pipeline') or _flipped(dataset.pipeline, detection=scope == 'mmdet')
    cfg.model = ConfigDict(**model, module=cfg.model)
    dataset.pipeline = pipeline


def _flipped(pipeline: list[Any], *, detection: bool) -> list[Any]:
    pack = dict(type='PackDetInputs', meta_keys=_DETECTION_KEYS) if detection else pipeline[-1]
    return [*deepcopy(pipeline[:-1]), dict(type='TestTimeAug', transforms=[deepcopy(_FLIPS), [deepcopy(pack)]])]
