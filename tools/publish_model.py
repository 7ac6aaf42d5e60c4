#!/usr/bin/env python
"""Makes a training's checkpoint ready to hand out: `python tools/publish_model.py CHECKPOINT NAME`.

Writes NAME-HASH.pth (or .safetensors): the weights alone, with what a reader must know of them: config, architecture,
data set, metric, git revision. The hash is the first eight digits of the file's SHA-256, as OpenMMLab names its files.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from coc_core.mm.entry import start

ROOT = Path(__file__).resolve().parents[1]
_KEPT = ('cfg', 'experiment_name', 'epoch', 'iter', 'seed', 'dataset_meta', 'mmengine_version', 'time')


def parse_args() -> argparse.Namespace:
    """Reads the command line."""
    from coc_core.mm.launch import add_config_options

    parser = argparse.ArgumentParser(description='Make a checkpoint ready to hand out.')
    parser.add_argument('checkpoint', help='a checkpoint that training wrote')
    parser.add_argument('name', help='folder and name of the new file, without hash and ending')
    parser.add_argument('--config', help='the config, where the checkpoint does not hold it')
    parser.add_argument(
        '--metric',
        nargs='+',
        default=[],
        metavar='NAME=VALUE',
        help='the result (default: what the log beside the checkpoint says of its epoch)',
    )
    parser.add_argument('--safetensors', action='store_true', help='write safetensors instead of a torch file')
    add_config_options(parser)
    return parser.parse_args()


def publish(args: argparse.Namespace) -> None:
    """Checks that the checkpoint fits its config, and writes what is to be handed out."""
    from coc_core import checkpoints
    from coc_core.mm.errors import LaunchError

    checkpoint = checkpoints.read(args.checkpoint)
    found = checkpoint.get('meta') if isinstance(checkpoint, dict) else None
    meta = dict(found) if isinstance(found, dict) else {}
    cfg = config_of(meta, args)
    model = build(cfg)
    print(checkpoints.fit(model, checkpoint, args.checkpoint))
    out = Path(args.name).expanduser()
    if out.is_dir() or args.name.endswith('/'):
        raise LaunchError(f'{args.name} is a folder: add the name that the file shall begin with.')
    if not out.parent.is_dir():
        raise LaunchError(f'{args.name} cannot be written: there is no folder {out.parent}.')
    kept = {key: meta[key] for key in _KEPT if key in meta} | {'cfg': cfg.pretty_text}
    kept |= {
        'git_revision': git_revision(),
        'dataset': cfg.get('test_dataloader', {}).get('dataset', {}).get('type'),
        'metric': given_metric(args.metric) or logged_metric(Path(args.checkpoint), meta),
        **architecture(model),
    }
    path = write(model.state_dict(), kept, out, safetensors=args.safetensors)
    for name in ('metric', 'dataset', 'git_revision', *(['denominator'] if 'denominator' in kept else [])):
        print(f'  {name}: {kept[name] or "not known"}')
    print(f'{path}: {path.stat().st_size / 2**20:.1f} MiB')


def config_of(meta: dict[str, Any], args: argparse.Namespace) -> Any:
    """Returns the config that is named, or the one in the checkpoint."""
    from mmengine.config import Config

    from coc_core.mm.errors import LaunchError
    from coc_core.mm.launch import load_config
    from coc_core.mm.safe_loading import is_plain_config

    if args.config:
        return load_config(args.config, args.cfg_options)
    if not isinstance(meta.get('cfg'), str):
        raise LaunchError(f'{args.checkpoint} does not hold its config: name it with --config.')
    if not is_plain_config(meta['cfg']):
        raise LaunchError(
            f'{args.checkpoint} holds a config that would run other code, and is not read: name one with --config.'
        )
    return Config.fromstring(meta['cfg'], '.py')


def build(cfg: Any) -> Any:
    """Returns the model of a config, randomly initialised."""
    from mmengine.registry import MODELS, init_default_scope

    from coc_core.mm.errors import LaunchError
    from coc_core.mm.launch import replace_sync_batch_norm

    try:
        init_default_scope(cfg.default_scope)
        replace_sync_batch_norm(cfg.model)
        return MODELS.build(cfg.model)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise LaunchError(f'The model of the config cannot be built: {type(error).__name__}: {error}') from error


def architecture(model: Any) -> dict[str, Any]:
    """Returns the fields of the model's backbone and the denominator that its weights were trained with."""
    config = getattr(getattr(model, 'backbone', None), 'config', None)
    if config is None:
        return {}
    denominator = getattr(config, 'denominator', None)
    return {'architecture': asdict(config), **({'denominator': denominator} if denominator else {})}


def git_revision() -> str | None:
    """Returns the checkout's commit, with ``-dirty`` where files are changed; None where there is none."""
    command = ['git', 'describe', '--always', '--abbrev=40', '--dirty', '--exclude=*']
    try:
        return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def given_metric(words: list[str]) -> dict[str, float]:
    """Returns the NAME=VALUE pairs of the command line."""
    from coc_core.mm.errors import LaunchError

    try:
        return {name: float(value) for name, value in (word.split('=', 1) for word in words)}
    except ValueError as error:
        raise LaunchError(f'--metric {" ".join(words)}: each word must be NAME=VALUE with a number.') from error


def logged_metric(checkpoint: Path, meta: dict[str, Any]) -> dict[str, float] | None:
    """Returns what mmengine's log beside the checkpoint says of the validation at its epoch or iteration."""
    steps = {meta.get('epoch'), meta.get('iter')}
    for log in sorted(checkpoint.parent.glob('*/vis_data/scalars.json'), reverse=True):
        lines = [parsed(line) for line in log.read_text(encoding='utf-8').splitlines()]
        # Lines of training have a learning rate.
        found = [line for line in lines if line and 'lr' not in line and line.get('step') in steps]
        if found:
            return {k: v for k, v in found[-1].items() if k not in ('step', 'time', 'data_time')}
    return None


def parsed(line: str) -> dict[str, Any]:
    """Returns a line of the log; nothing where it is torn."""
    try:
        found = json.loads(line)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def write(weights: dict[str, Any], meta: dict[str, Any], out: Path, *, safetensors: bool) -> Path:
    """Writes a file, whole or not at all, and names it by its hash."""
    import torch
    from safetensors.torch import save_file

    ending = '.safetensors' if safetensors else '.pth'
    with tempfile.TemporaryDirectory(dir=out.parent, prefix='.') as folder:
        beside = Path(folder) / 'weights'
        if safetensors:
            words = {k: v if isinstance(v, str) else json.dumps(v, default=str) for k, v in meta.items() if v}
            save_file({k: v.contiguous() for k, v in weights.items()}, beside, metadata={'format': 'pt', **words})
        else:
            torch.save({'meta': meta, 'state_dict': weights}, beside)
        path = out.with_name(f'{out.name}-{hashlib.sha256(beside.read_bytes()).hexdigest()[:8]}{ending}')
        os.replace(beside, path)
    return path


if __name__ == '__main__':
    sys.exit(start(publish, parse_args))
