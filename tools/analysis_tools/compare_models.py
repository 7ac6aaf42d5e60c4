#!/usr/bin/env python
"""Train several configs with several seeds, and write a record of the comparison.

python tools/analysis_tools/compare_models.py CONFIG CONFIG ... --seeds 0 1 2 --out docs/results/fashion-mnist

Trains by `run_seeds.py`: what was interrupted goes on, and what is complete is not repeated. The folder of --out gets
`results.json` (metrics of each seed, mean and standard deviation, parameters, SHA-256 of each checkpoint, what differs
from the first config, hardware and versions), `curves.png`, and the training logs.

What differs beside the architecture, such as the length, the images or the weights to start from, is told before any
training.
"""

from __future__ import annotations

import argparse
import inspect
import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from coc_core.mm.requirements import require

require('mmengine', 'matplotlib')

import torch
from mmengine.config import Config
from mmengine.runner import Runner

from benchmarks.machine import describe
from coc_core.errors import UserError
from coc_core.files import check_out, check_writable, write_bytes
from coc_core.mm.cli.children import run_child
from coc_core.mm.cli.options import add_config_options
from coc_core.mm.cli.start import run_tool
from coc_core.mm.configs import load_config
from coc_core.mm.fault_tolerance.settings import settings_of, shown
from coc_core.mm.fault_tolerance.stopping import EXIT_CODES
from coc_core.mm.models import build_model

HERE = Path(__file__).resolve().parent
# What of a model is no part of the architecture: images, mixed samples, weights to start from, what is not trained.
_OF_MODELS = re.compile(
    r'model\.(data_preprocessor|train_cfg|test_cfg)(\.|$)|model\..*\b(pretrained|checkpoint(_path)?|frozen_stages|'
    r'norm_eval|drop_path_rate)$'
)
# What a run writes, and what is made for a model's names.
_OF_NO_RESULT = re.compile(r'(model|custom_imports|default_hooks\.visualization)(\.|$)|.*\.(max_keep_ckpts|save_last)$')


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('configs', nargs='+', type=Path, metavar='CONFIG', help='the configs to compare')
    parser.add_argument('--seeds', nargs='+', type=int, default=[0, 1, 2])
    parser.add_argument('--processes', default='1', help='GPUs, or processes without one (default: 1)')
    parser.add_argument('--work-dir', type=Path, help='folder of the trainings (default: work_dirs/NAME-OF-OUT)')
    parser.add_argument('--out', type=Path, required=True, help='folder of the record')
    add_config_options(parser)
    return parser.parse_args()


def compare(args: argparse.Namespace) -> None:
    """Train, test and record.

    Raises:
        UserError: Two configs have one name or other test data, --out cannot be written, or a training or test failed.
    """
    names = [config.stem for config in args.configs]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f'Two configs are named {name}: rename one, as the name is that of its folder.')
    # What is trained for days shall not end at a full disk or a slip of the pen.
    check_out(args.out)
    check_writable(next(place for place in (args.out, *args.out.absolute().parents) if place.exists()))
    folder = args.work_dir or Path('work_dirs') / args.out.name
    settings = {config.stem: compared_settings(load_config(str(config), args.cfg_options)) for config in args.configs}
    otherwise = {name: differences(settings[name], settings[names[0]], names[0]) for name in names}
    tell(otherwise)
    models = [record(config, folder / config.stem, args) for config in args.configs]
    check_same_test(models)
    for model in models:
        model['otherwise'] = [*otherwise[model['name']], *other_training_data(model, models[0])]
    logs = [_keep_log(model['name'], seed, folder, args.out) for model in models for seed in args.seeds]
    _tool('plot_logs.py', *(folder / name for name in names), '--out', args.out / 'curves.png')
    content = {'machine': describe(torch.device('cuda' if torch.cuda.is_available() else 'cpu')), 'models': models}
    write_bytes(args.out / 'results.json', json.dumps(content, indent=1).encode() + b'\n')
    print(table(models))
    tell({model['name']: model['otherwise'] for model in models})
    print(f'written to {args.out}: results.json, curves.png, {len(logs)} logs')


def record(config: Path, work_dir: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Train a config with all seeds; return name, config, parameters, seeds, metrics and checkpoints."""
    model = build_model(load_config(str(config), args.cfg_options), config.name)
    options = [f'{key}={value.text}' for key, value in args.cfg_options.items()]
    _tool(
        'run_seeds.py', config, '--seeds', *args.seeds, '--processes', args.processes, '--work-dir', work_dir,
        *(('--cfg-options', *options) if options else ()),
    )  # fmt: skip
    shown = config.resolve()
    return {
        'name': config.stem,
        'config': str(shown.relative_to(ROOT) if shown.is_relative_to(ROOT) else config.name),
        'parameters': sum(parameter.numel() for parameter in model.parameters()),
        **json.loads((work_dir / 'summary.json').read_text()),
    }


def compared_settings(cfg: Config) -> dict[str, str]:
    """Return what of a config says how a model is trained and tested, by dotted keys, and what it starts from."""
    # The others are variables that the config computes with.
    read = inspect.signature(Runner.__init__).parameters
    settings = settings_of({key: value for key, value in cfg.to_dict().items() if key in read})
    return {key: value for key, value in settings.items() if _OF_MODELS.match(key) or not _OF_NO_RESULT.match(key)}


def differences(settings: Mapping[str, str], first: Mapping[str, str], name: str) -> list[str]:
    """Return what a config has otherwise than the first one, which is called ``name``, as parts of a sentence."""
    keys = [key for key in dict.fromkeys((*settings, *first)) if settings.get(key) != first.get(key)]
    return [f'{key} is {settings.get(key, "not set")}, {first.get(key, "not set")} in {name}' for key in keys]


def other_training_data(model: dict[str, Any], first: dict[str, Any]) -> list[str]:
    """Return that two models were trained with other samples, as far as their records tell, as `differences` does."""
    both = model.get('train_data'), first.get('train_data')
    return [f'other training samples than {first["name"]}'] if None not in both and both[0] != both[1] else []


def tell(otherwise: Mapping[str, list[str]]) -> None:
    """Tell of models that are not trained and tested as the first one."""
    for name, found in otherwise.items():
        if found:
            print(f'note: {name} differs in more than the architecture: {shown(found)}.', file=sys.stderr, flush=True)


def check_same_test(models: list[dict[str, Any]]) -> None:
    """Check that all models were tested with the same data.

    Raises:
        UserError: Two were not.
    """
    known = [model for model in models if model.get('test_data')]
    if unknown := [model['name'] for model in models if model not in known]:
        told = 'is tested with samples that nobody knows, so whether they are those of the others is for you to see'
        print(f'note: {", ".join(unknown)} {told}.', file=sys.stderr, flush=True)
    for model in known:
        if model['test_data'] != known[0]['test_data']:
            raise UserError(
                f'{model["name"]} and {known[0]["name"]} are tested with other samples: their results do not compare, '
                'so give both the same test_dataloader.dataset.'
            )


def _tool(name: str, *arguments: Any) -> None:
    code = run_child([sys.executable, str(HERE / name), *map(str, arguments)])
    if code in EXIT_CODES.values():
        sys.exit(code)
    if code:
        raise UserError(f'{name} failed, as it says above: mend that and run the same command again.')


def _keep_log(name: str, seed: int, folder: Path, out: Path) -> Path:
    """Bring a training's log into the record; one that was interrupted has a log for each part."""
    parts = sorted((folder / name / f'seed-{seed}').glob('*/vis_data/scalars.json'))
    path = out / 'logs' / f'{name}_seed-{seed}.json'
    write_bytes(path, b''.join(part.read_bytes() for part in parts))
    return path


def table(models: list[dict[str, Any]]) -> str:
    """Return the results as a Markdown table."""
    metrics = list(dict.fromkeys(name for model in models for name in model['metrics']))
    lines = [f'| config | parameters | {" | ".join(metrics)} |', '|:---|---:|' + '---:|' * len(metrics)]
    for model in models:
        cells = ' | '.join(_cell(model['metrics'].get(name)) for name in metrics)
        lines.append(f'| `{model["config"]}` | {model["parameters"]:,} | {cells} |')
    return '\n'.join(lines)


def _cell(result: dict[str, Any] | None) -> str:
    if result is None:
        return 'not measured'
    return 'no number' if result['mean'] is None else f'{result["mean"]:.2f} ± {result["std"]:.2f}'


if __name__ == '__main__':
    sys.exit(run_tool(compare, parse_args()))
