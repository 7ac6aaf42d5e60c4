#!/usr/bin/env python
"""Trains and tests a config with several seeds.

python tools/analysis_tools/run_seeds.py CONFIG --seeds 0 1 2 [--processes N]

Prints mean and standard deviation of every metric; `summary.json` has them, and the SHA-256 of each checkpoint that was
tested. Works for any task. A run that was interrupted goes on where it stopped; one that is complete is not repeated.
Runs of another config, other data or another number of processes than those that are there are refused.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import re
import statistics
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

TOOLS = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(TOOLS.parent))

from coc_core.mm.requirements import require

require('mmengine')

from mmengine.config import Config
from mmengine.registry import DATASETS

from coc_core.errors import UserError
from coc_core.files import write_bytes
from coc_core.mm.cli.children import run_child
from coc_core.mm.cli.options import add_config_options
from coc_core.mm.cli.start import run_tool
from coc_core.mm.configs import load_config
from coc_core.mm.data_checks.inspection import innermost_datasets
from coc_core.mm.fault_tolerance.data_identity import identity_of
from coc_core.mm.fault_tolerance.locking import lock
from coc_core.mm.fault_tolerance.saving import POINTER
from coc_core.mm.fault_tolerance.settings import changes, settings_of, shown
from coc_core.mm.fault_tolerance.states import earlier_files, find_state
from coc_core.mm.requirements import quiet_imports

RECORD = 'run.json'
_NUMBER = re.compile(r'_(?:epoch|iter)_(\d+)$')


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('config', help='the config file')
    parser.add_argument('--seeds', nargs='+', type=int, default=[0, 1, 2])
    parser.add_argument('--processes', default='1', help='GPUs, or processes without one (default: 1)')
    parser.add_argument('--work-dir', type=Path, help='folder of the runs (default: work_dirs/NAME-seeds)')
    add_config_options(parser)
    return parser.parse_args()


def run(*command: str | Path) -> None:
    """Run one of the tools; ends with its exit code where it fails."""
    print('$', *command, flush=True)
    code = run_child([str(part) for part in command], {'PYTHON': sys.executable, **os.environ})
    if code:
        sys.exit(code)


def run_seed(args: argparse.Namespace, seed: int, work_dir: Path) -> dict[str, Any]:
    """Train and test with one seed unless that is done.

    Returns:
        The record of the run, with the ``metrics`` of its test and the ``sha256`` of the checkpoint.

    Raises:
        UserError: The folder holds a run of something else, or the test has no metric.
    """
    done = work_dir / 'metrics.json'
    record = begin(args, seed, work_dir)
    if not done.is_file():
        chosen = [f'{key}={value.text}' for key, value in args.cfg_options.items()]
        options = ['--cfg-options', f'randomness.seed={seed}', *chosen]
        run(TOOLS / 'dist_train.sh', args.config, args.processes, '--work-dir', work_dir, '--resume', 'auto', *options)
        # A training takes days, in which somebody may have edited the config.
        record = begin(args, seed, work_dir)
        checkpoint = checkpoint_of(work_dir, record['save_best'])
        # Before the test: whatever ends this run, its metrics are never without the file that they are of.
        record |= tested(checkpoint)
        write_record(record, work_dir)
        run(
            TOOLS / 'dist_test.sh', args.config, checkpoint, args.processes,
            '--work-dir', work_dir / 'test', '--out', done, '--out-item', 'metrics', *options,
        )  # fmt: skip
    metrics = {name: value for name, value in json.loads(done.read_text()).items() if isinstance(value, (int, float))}
    if not metrics:
        raise UserError(f'{done} holds no number: the test_evaluator of {args.config} measures nothing.')
    if 'sha256' not in record:
        record |= tested(checkpoint_of(work_dir, record['save_best']))
    return {**record, 'metrics': metrics}


def begin(args: argparse.Namespace, seed: int, work_dir: Path) -> dict[str, Any]:
    """Return the record of a run, which says what it trains; write it where the folder has none.

    Raises:
        UserError: The folder holds a run of something else.
    """
    cfg = load_config(args.config, args.cfg_options)
    cfg.merge_from_dict({'randomness.seed': seed})
    now: dict[str, Any] = {
        'settings': {'processes': args.processes, **settings_of(cfg.to_dict())},
        'data': {phase: data_of(cfg, phase) for phase in ('train', 'val', 'test')},
        'save_best': best_of(cfg),
    }
    path = work_dir / RECORD
    if not path.is_file():
        complete = (work_dir / 'metrics.json').is_file()
        if complete or earlier_files(str(work_dir)):
            what = 'its metrics are taken as they are' if complete else 'it goes on with the settings of now'
            print(f'{work_dir} does not say of what config and data it is: {what}.', file=sys.stderr)
        if not complete:
            write_record(now, work_dir)
        return now
    before: dict[str, Any] = json.loads(path.read_text())
    check_same(before, now, str(work_dir))
    return before | {'data': {phase: samples or now['data'][phase] for phase, samples in before['data'].items()}}


def check_same(before: Mapping[str, Any], now: Mapping[str, Any], place: str) -> None:
    """Check that two runs are of one thing.

    Raises:
        UserError: They are not.
    """
    if found := differences(before, now):
        raise UserError(
            f'{place} holds a run of something else ({shown(found)}): its numbers do not belong to this one, so name '
            'another folder with --work-dir, or remove it to train anew.'
        )


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return what two runs have not in common, as parts of a sentence."""
    others = [
        f'other samples in the {phase} data'
        for phase, samples in now['data'].items()
        if None not in (samples, before['data'][phase]) and samples != before['data'][phase]
    ]
    return [*others, *changes(before['settings'], now['settings'])]


def without_seed(run: Mapping[str, Any]) -> dict[str, Any]:
    """Return the record of a run without what tells seeds apart."""
    return {**run, 'settings': {key: value for key, value in run['settings'].items() if key != 'randomness.seed'}}


def data_of(cfg: Config, phase: str) -> list[str] | None:
    """Return what tells the samples of a phase from others; None where nobody knows, or training will say it."""
    found = []
    for dataset in innermost_datasets(cfg, phase):
        try:
            with quiet_imports(), DATASETS.switch_scope_and_registry(cfg.get('default_scope')) as registry:
                identity = identity_of(registry.build({**dataset, 'pipeline': []}))
        except Exception:
            return None
        found.append(identity and identity[0])
    return None if None in found else found


def best_of(cfg: Config) -> str | None:
    """Return by which metric the best checkpoint is chosen, None: none is.

    Raises:
        UserError: There are several, of which each has its own.
    """
    best = ((cfg.get('default_hooks') or {}).get('checkpoint') or {}).get('save_best')
    if isinstance(best, (list, tuple)):
        if len(best) > 1:
            raise UserError(
                f'default_hooks.checkpoint.save_best has {len(best)} metrics, each with a checkpoint of its own: name '
                f'the one that is tested, as --cfg-options default_hooks.checkpoint.save_best={best[0]} does.'
            )
        best = next(iter(best), None)
    return best


def checkpoint_of(work_dir: Path, save_best: str | None) -> Path:
    """Return the best checkpoint where the config chooses one (on its validation data), else the last.

    Raises:
        UserError: There is none.
    """
    best = [path for path in work_dir.glob('best_*.pth') if _NUMBER.search(path.stem)] if save_best else []
    if best:
        # A kill may leave the one that was the best before; no clock tells which it is.
        return max(best, key=lambda path: int(_NUMBER.search(path.stem)[1]))  # type: ignore[index]
    pointer = work_dir / POINTER
    last = work_dir / Path(pointer.read_text().strip()).name if pointer.is_file() else None
    if last is not None and last.is_file():
        return last
    state = find_state(str(work_dir))
    if state is None:
        raise UserError(f'{work_dir} holds no checkpoint to test: remove it to train anew.')
    return state.path


def tested(checkpoint: Path) -> dict[str, str]:
    """Return what a record says of the checkpoint that is tested."""
    return {'checkpoint': checkpoint.name, 'sha256': hashlib.sha256(checkpoint.read_bytes()).hexdigest()}


def write_record(record: Mapping[str, Any], work_dir: Path) -> None:
    """Write what a run trains, and what was tested."""
    write_bytes(work_dir / RECORD, json.dumps(record, indent=1).encode())


def summarize(runs: Mapping[int, Mapping[str, Any]]) -> dict[str, Any]:
    """Return values, mean and standard deviation of each metric; what is no number is None in them.

    Raises:
        UserError: The runs have no metric in common.
    """
    measured = [run['metrics'] for run in runs.values()]
    summary: dict[str, Any] = {}
    for name in dict.fromkeys(name for metrics in measured for name in metrics):
        lacking = [str(seed) for seed, run in runs.items() if name not in run['metrics']]
        if lacking:
            print(f'{name} is left out: seed {", ".join(lacking)} has none.', file=sys.stderr)
            continue
        values = [metrics[name] for metrics in measured]
        if not all(map(math.isfinite, values)):
            shown = [value if math.isfinite(value) else None for value in values]
            summary[name] = {'values': shown, 'mean': None, 'std': None}
            print(f'{name} has no mean: it is no number with every seed.', file=sys.stderr)
            continue
        deviation = statistics.stdev(values) if len(values) > 1 else 0.0
        summary[name] = {'values': values, 'mean': statistics.mean(values), 'std': deviation}
    if not summary:
        raise UserError('No metric was measured with every seed.')
    return summary


def table(seeds: list[int], summary: Mapping[str, Any]) -> str:
    """Return the results of all seeds as text."""
    lines = [f'\n{"seed":>16}' + ''.join(f'{seed:>10}' for seed in seeds) + f'{"mean":>10}{"std":>10}']
    for name, result in summary.items():
        cells = (*result['values'], result['mean'], result['std'])
        lines.append(f'{name:>16}' + ''.join(f'{"nan" if cell is None else format(cell, ".2f"):>10}' for cell in cells))
    return '\n'.join(lines)


def run_seeds(args: argparse.Namespace) -> None:
    """Train and test with all seeds, and sum up.

    Raises:
        UserError: An argument is impossible, or a run is not what it shall be.
    """
    if twice := sorted({seed for seed in args.seeds if args.seeds.count(seed) > 1}):
        raise UserError(f'--seeds has {twice[0]} twice: one training would count as two.')
    if set(args.cfg_options) & {'randomness', 'randomness.seed'}:
        raise UserError('--cfg-options randomness.seed would be that of all runs: --seeds gives each its own.')
    folder = args.work_dir or Path('work_dirs') / f'{Path(args.config).stem}-seeds'
    lock(str(folder))
    runs: dict[int, dict[str, Any]] = {}
    for seed in args.seeds:
        runs[seed] = run_seed(args, seed, folder / f'seed-{seed}')
        check_same(without_seed(runs[args.seeds[0]]), without_seed(runs[seed]), str(folder / f'seed-{args.seeds[0]}'))
    summary = summarize(runs)
    print(table(args.seeds, summary))
    content = {
        'seeds': args.seeds,
        'metrics': summary,
        'checkpoints_sha256': [run['sha256'] for run in runs.values()],
        'train_data': runs[args.seeds[-1]]['data']['train'],
        'test_data': runs[args.seeds[-1]]['data']['test'],
    }
    write_bytes(folder / 'summary.json', json.dumps(content, indent=1).encode())
    print(f'written to {folder / "summary.json"}')


if __name__ == '__main__':
    sys.exit(run_tool(run_seeds, parse_args()))
