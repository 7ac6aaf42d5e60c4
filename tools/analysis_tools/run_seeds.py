#!/usr/bin/env python
"""Trains and tests a config with several seeds.

python tools/analysis_tools/run_seeds.py CONFIG --seeds 0 1 2 [--processes N]

Prints mean and standard deviation of every metric; `summary.json` has them, and the SHA-256 of each checkpoint that was
tested. Works for any task. A run that was interrupted goes on where it stopped; one that is complete is not repeated.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

TOOLS = Path(__file__).resolve().parents[1]


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('config', help='the config file')
    parser.add_argument('--seeds', nargs='+', type=int, default=[0, 1, 2])
    parser.add_argument('--processes', default='1', help='GPUs, or processes without one (default: 1)')
    parser.add_argument('--work-dir', type=Path, help='folder of the runs (default: work_dirs/NAME-seeds)')
    parser.add_argument('--cfg-options', nargs='+', default=[], metavar='KEY=VALUE', help='as in tools/train.py')
    return parser.parse_args()


def run(*command: str | Path) -> None:
    """Run one of the tools; ends with its exit code where it fails."""
    print('$', *command, flush=True)
    environment = {'PYTHON': sys.executable, **os.environ}
    code = subprocess.run([str(part) for part in command], env=environment).returncode
    if code:
        sys.exit(code)


def metrics_of(args: argparse.Namespace, seed: int, work_dir: Path) -> dict[str, float]:
    """Train and tests with one seed unless that is done; returns the metrics of the test."""
    done = work_dir / 'metrics.json'
    if not done.is_file():
        options = ['--cfg-options', f'randomness.seed={seed}', *args.cfg_options]
        run(TOOLS / 'dist_train.sh', args.config, args.processes, '--work-dir', work_dir, '--resume', 'auto', *options)
        run(
            TOOLS / 'dist_test.sh', args.config, checkpoint_of(work_dir), args.processes,
            '--work-dir', work_dir / 'test', '--out', done, '--out-item', 'metrics', *options,
        )  # fmt: skip
    return {name: value for name, value in json.loads(done.read_text()).items() if isinstance(value, (int, float))}


def checkpoint_of(work_dir: Path) -> Path:
    """Return the best checkpoint where the config chooses one (on its validation data), else the last."""
    best = sorted(work_dir.glob('best_*.pth'), key=lambda path: path.stat().st_mtime)
    return best[-1] if best else Path((work_dir / 'last_checkpoint').read_text().strip())


def main() -> None:
    """Command line."""
    args = parse_args()
    folder = args.work_dir or Path('work_dirs') / f'{Path(args.config).stem}-seeds'
    runs = {seed: metrics_of(args, seed, folder / f'seed-{seed}') for seed in args.seeds}
    names = [name for name in next(iter(runs.values())) if all(name in metrics for metrics in runs.values())]
    summary: dict[str, dict[str, float | list[float]]] = {}
    print(f'\n{"seed":>16}' + ''.join(f'{seed:>10}' for seed in runs) + f'{"mean":>10}{"std":>10}')
    for name in names:
        values = [metrics[name] for metrics in runs.values()]
        deviation = statistics.stdev(values) if len(values) > 1 else 0.0
        summary[name] = {'values': values, 'mean': statistics.mean(values), 'std': deviation}
        print(f'{name:>16}' + ''.join(f'{value:10.2f}' for value in (*values, summary[name]['mean'], deviation)))
    files = [checkpoint_of(folder / f'seed-{seed}') for seed in args.seeds]
    hashes = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
    content = {'seeds': args.seeds, 'metrics': summary, 'checkpoints_sha256': hashes}
    (folder / 'summary.json').write_text(json.dumps(content, indent=1))
    print(f'written to {folder / "summary.json"}')


if __name__ == '__main__':
    main()
