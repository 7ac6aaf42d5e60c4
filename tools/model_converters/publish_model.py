#!/usr/bin/env python
"""Make a training's checkpoint ready to hand out: `python tools/model_converters/publish_model.py CHECKPOINT NAME`.

Writes NAME-HASH.pth (or .safetensors): the weights alone, with what a reader must know of them: config, architecture,
data set, metric, git revision. The hash is the first eight digits of the file's SHA-256, as OpenMMLab names its files.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from coc_core.mm.requirements import require

require('mmengine')

import torch
from mmengine.config import Config
from safetensors.torch import save as serialize

from coc_core import checkpoints
from coc_core.checkpoints.origins.records import STOCK_MIXER
from coc_core.errors import UserError
from coc_core.files import write_bytes
from coc_core.mm.cli.options import add_config_options
from coc_core.mm.cli.start import run_tool
from coc_core.mm.configs import load_config
from coc_core.mm.models import build_model

ROOT = Path(__file__).resolve().parents[2]
_KEPT = ('cfg', 'experiment_name', 'epoch', 'iter', 'seed', 'dataset_meta', 'mmengine_version', 'time')


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description='Make a checkpoint ready to hand out.')
    parser.add_argument('checkpoint', help='a checkpoint that training wrote')
    parser.add_argument('name', help='folder and name of the new file, without hash and ending')
    parser.add_argument('--config', help='the config (default: the one beside the checkpoint)')
    parser.add_argument(
        '--metric',
        nargs='+',
        default=[],
        metavar='NAME=VALUE',
        help='the result (default: what the log beside the checkpoint says of its epoch)',
    )
    parser.add_argument('--safetensors', action='store_true', help='write safetensors instead of a torch file')
    parser.add_argument(
        '--half', action='store_true', help='store float32 as float16, each number to 11 bits: half the size'
    )
    add_config_options(parser)
    return parser.parse_args()


def publish(args: argparse.Namespace) -> None:
    """Check that the checkpoint fits its config, and write what is to be handed out."""
    checkpoint = checkpoints.read(args.checkpoint)
    found = checkpoint.get('meta') if isinstance(checkpoint, dict) else None
    meta = dict(found) if isinstance(found, dict) else {}
    cfg = config_of(args)
    model = build_model(cfg, args.config or args.checkpoint)
    report = checkpoints.load_content(model, checkpoint, args.checkpoint)
    print(report)
    if report.otherwise:
        raise UserError(
            f'{args.checkpoint} was trained {"; ".join(report.otherwise)}: name the config of its training (--config), '
            'which the file that is handed out records.'
        )
    out = Path(args.name).expanduser()
    if out.is_dir() or args.name.endswith('/'):
        raise UserError(f'{args.name} is a folder: add the name that the file shall begin with.')
    if not out.parent.is_dir():
        raise UserError(f'{args.name} cannot be written: there is no folder {out.parent}.')
    kept = {key: meta[key] for key in _KEPT if key in meta} | {'cfg': cfg.pretty_text}
    kept |= {
        'git_revision': git_revision(),
        'dataset': dataset_name(cfg),
        'metric': given_metric(args.metric) or logged_metric(Path(args.checkpoint), meta),
        **architecture(model),
    }
    weights = halved(model.state_dict()) if args.half else model.state_dict()
    path = write(weights, kept, out, safetensors=args.safetensors)
    for name in ('metric', 'dataset', 'git_revision', *(name for name in ('denominator', 'mixer') if name in kept)):
        print(f'  {name}: {kept[name] or "not known"}')
    print(f'{path}: {path.stat().st_size / 2**20:.1f} MiB')


def halved(weights: dict[str, Any]) -> dict[str, Any]:
    """Return the weights with float16 in the place of float32.

    Raises:
        UserError: A weight is larger than float16 holds.
    """
    half = {key: value.half() if value.dtype == torch.float32 else value for key, value in weights.items()}
    for key, value in weights.items():
        if value.is_floating_point() and not torch.equal(value.isfinite(), half[key].isfinite()):
            raise UserError(
                f'--half: {key} has a number of more than 65,504, which float16 does not hold: leave --half out.'
            )
    return half


def config_of(args: argparse.Namespace) -> Config:
    """Return the config that is named, or the one that training left beside the checkpoint."""
    if args.config:
        return load_config(args.config, args.cfg_options)
    # The text in the checkpoint is a program of whoever wrote the file: it is never run.
    found = sorted(Path(args.checkpoint).expanduser().parent.glob('*.py'))
    if len(found) != 1:
        raise UserError(f'{args.checkpoint} has {len(found)} configs (*.py) beside it: name one with --config.')
    return load_config(str(found[0]), args.cfg_options)


def dataset_name(cfg: Config) -> str | None:
    """Return the class of the test data and its folder, as a class often reads other data than it is named after."""
    dataset = (cfg.get('test_dataloader') or {}).get('dataset') or {}
    name, root = dataset.get('type'), dataset.get('data_root')
    return f'{name} in {root}' if name and root else name


def architecture(model: Any) -> dict[str, Any]:
    """Return the fields of the model's backbone, and the denominator and mixer that its weights were trained with."""
    config = getattr(getattr(model, 'backbone', None), 'config', None)
    if config is None:
        return {}
    denominator = getattr(config, 'denominator', None)
    layers = sorted({type(m).__name__ for name, m in model.named_modules() if name.endswith('.mixer')} - {STOCK_MIXER})
    return {
        'architecture': asdict(config),
        **({'denominator': denominator} if denominator else {}),
        **({'mixer': ', '.join(layers), 'mixer_arguments': model.backbone.mixer_arguments} if layers else {}),
    }


def git_revision() -> str | None:
    """Return the checkout's commit, with ``-dirty`` where files are changed; None where there is none."""
    command = ['git', 'describe', '--always', '--abbrev=40', '--dirty', '--exclude=*']
    try:
        return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def given_metric(words: list[str]) -> dict[str, float]:
    """Return the NAME=VALUE pairs of the command line."""
    try:
        return {name: float(value) for name, value in (word.split('=', 1) for word in words)}
    except ValueError as error:
        raise UserError(f'--metric {" ".join(words)}: each word must be NAME=VALUE with a number.') from error


def logged_metric(checkpoint: Path, meta: dict[str, Any]) -> dict[str, float] | None:
    """Return what mmengine's log beside the checkpoint says of the validation at its epoch or iteration."""
    for log in sorted(checkpoint.expanduser().parent.glob('*/vis_data/scalars.json'), reverse=True):
        found: dict[str, Any] = {}
        past = False
        for line in map(parsed, log.read_text(encoding='utf-8', errors='replace').splitlines()):
            # Lines of training have a learning rate. A validation is named by its epoch or its iteration, and of small
            # data the iteration of one checkpoint is the epoch of another: which came before which tells them apart.
            if 'lr' in line:
                past = line.get('iter', line.get('step', 0)) > meta.get('iter', float('inf'))
                found = found if past or 'iter' not in meta else {}
            elif line and not past and line.get('step') in (meta.get('epoch'), meta.get('iter')):
                found = line
        if found:
            return {k: v for k, v in found.items() if k not in ('step', 'time', 'data_time')}
    return None


def parsed(line: str) -> dict[str, Any]:
    """Return a line of the log; nothing where it is torn."""
    try:
        found = json.loads(line)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def write(weights: dict[str, Any], meta: dict[str, Any], out: Path, *, safetensors: bool) -> Path:
    """Write a file, whole or not at all, and name it by its hash."""
    stream = io.BytesIO()
    if safetensors:
        words = {k: v if isinstance(v, str) else json.dumps(v, default=str) for k, v in meta.items() if v}
        tensors = {k: v.contiguous() for k, v in weights.items()}
        stream.write(serialize(tensors, metadata={'format': 'pt', **words}))
    else:
        torch.save({'meta': meta, 'state_dict': weights}, stream)
    content = stream.getvalue()
    ending = '.safetensors' if safetensors else '.pth'
    path = out.with_name(f'{out.name}-{hashlib.sha256(content).hexdigest()[:8]}{ending}')
    write_bytes(path, content)
    return path


if __name__ == '__main__':
    sys.exit(run_tool(publish, parse_args()))
