#!/usr/bin/env python
"""Predict images, films and point clouds with any config.

python tools/predict.py INPUT ... --config CONFIG --checkpoint FILE [--out FOLDER] [--num-shards N --shard I] ...

Writes a table, pictures and what else the task has below --out. What is in the table already is not predicted again.
Exit code 0: all predicted; 1: some files could not be read, predicted or drawn; 2: the command or the config is wrong.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
# torch reads it when it is imported; why: tools/dist_common.sh.
if 'OMP_WAIT_POLICY' not in os.environ:
    os.environ.setdefault('GOMP_SPINCOUNT', '3000')

from coc_core.mm.requirements import require

require('mmengine')

from rich.progress import Progress

from coc_core.errors import UserError
from coc_core.files import check_out
from coc_core.mm.cli.options import add_config_options
from coc_core.mm.cli.start import run_tool
from coc_core.mm.hooks.progress import progress_bar, terminal_console
from coc_core.mm.prediction.inputs import Found, Shard, expected_count, find_files
from coc_core.mm.prediction.predictor import Predictor
from coc_core.mm.prediction.tables import Table
from coc_core.mm.prediction.writing import Writer


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('inputs', nargs='+', metavar='INPUT', help='files, folders, patterns such as "a/**/*.jpg"')
    parser.add_argument('--config', required=True, help='the config file')
    parser.add_argument('--checkpoint', required=True, help='the checkpoint file')
    parser.add_argument('--out', type=Path, default=Path('predictions'), help='folder of what is written')
    parser.add_argument('--table', choices=['jsonl', 'csv'], default='jsonl', help='csv: write the table as CSV too')
    parser.add_argument('--no-pictures', action='store_true', help='draw no pictures')
    parser.add_argument('--top-k', type=int, default=5, help='classes listed of each image or cloud (default: 5)')
    parser.add_argument('--score', type=float, help='detection: the least score of an object (default: 0.3)')
    parser.add_argument('--every', type=int, default=1, metavar='N', help='each Nth frame of films (default: 1)')
    parser.add_argument('--tta', action='store_true', help='average over augmented copies')
    parser.add_argument('--batch-size', type=int, help="samples of a batch (default: the config's in testing)")
    parser.add_argument('--workers', type=int, default=min(4, os.cpu_count() or 1), help='processes that load samples')
    parser.add_argument('--device', help='such as cpu or cuda:1 (default: cuda where there is one)')
    parser.add_argument('--num-shards', type=int, default=1, metavar='N', help='how many processes share the work')
    parser.add_argument('--shard', type=int, metavar='I', help='which of them this is, from 0')
    parser.add_argument('--overwrite', action='store_true', help='begin the table anew')
    add_config_options(parser)
    return parser.parse_args()


def shard_of(args: argparse.Namespace) -> Shard:
    """Return which part of the work is this process's; raises UserError where an option is impossible."""
    for name in ('every', 'num_shards', 'batch_size'):
        number = getattr(args, name)
        if number is not None and number < 1:
            raise UserError(f'--{name.replace("_", "-")} {number} must be at least 1.')
    if args.workers < 0:
        raise UserError(f'--workers {args.workers} must be at least 0.')
    if args.shard is None and args.num_shards > 1:
        raise UserError(f'--num-shards {args.num_shards} needs --shard I, from 0 to {args.num_shards - 1}.')
    if args.shard is not None and not 0 <= args.shard < args.num_shards:
        raise UserError(f'--shard {args.shard} must be from 0 to {args.num_shards - 1}, one less than --num-shards.')
    check_out(args.out)
    return Shard(args.shard or 0, args.num_shards)


def open_table(args: argparse.Namespace, predictor: Predictor, found: Found, shard: Shard) -> Table:
    """Open the table of this process, to begin it or to go on with it."""
    weights = hashlib.sha256()
    with Path(args.checkpoint).expanduser().open('rb') as file:
        while part := file.read(1 << 20):
            weights.update(part)
    record = dict(
        config=predictor.digest,
        checkpoint=weights.hexdigest(),
        root=found.root,
        tta=args.tta,
        every=args.every,
        pictures=not args.no_pictures,
        **vars(predictor.predictions.wishes),
    )
    names = dict(config=args.config, checkpoint=args.checkpoint)
    return Table(args.out, shard, record, names, overwrite=args.overwrite)


@contextmanager
def shown(total: int, done: int) -> Iterator[Progress | None]:
    """Show a progress bar with the time left on a terminal."""
    console = terminal_console()
    if console is None:
        yield None
        return
    with progress_bar(console, redirect_stderr=sys.stderr.isatty()) as progress:
        progress.add_task('predicted', total=total, completed=done)
        yield progress


def predict(args: argparse.Namespace) -> int:
    """Predict everything; returns how many samples could not be predicted or drawn."""
    shard = shard_of(args)
    predictor = Predictor.from_config(
        args.config,
        args.checkpoint,
        args.cfg_options,
        device=args.device,
        tta=args.tta,
        score=args.score,
        top_k=args.top_k,
    )
    found = find_files(args.inputs, predictor.files, leave_out=args.out)
    if found.passed_over:
        kinds = ', '.join(f'{count} {ending}' for ending, count in found.passed_over.most_common(5))
        print(f'Passed over as no {predictor.files.noun}: {kinds}.', file=sys.stderr)
    table = open_table(args, predictor, found, shard)
    before = len(table.done)
    found.paths = [path for path in found.paths if path not in table.done]
    total = before + expected_count(found, predictor.files, shard=shard, every=args.every)
    writer = Writer(predictor, table, found, pictures=not args.no_pictures)
    with shown(total, before) as progress:
        for outcomes in predictor.predict(
            found,
            shard,
            table.done,
            every=args.every,
            batch_size=args.batch_size or predictor.batch_size,
            workers=args.workers,
        ):
            for problem in writer.write(outcomes):
                print(problem, file=sys.stderr)
            if progress is not None:
                progress.update(progress.task_ids[0], advance=len(outcomes))
    files = writer.finish(shard, as_csv=args.table == 'csv')
    earlier = f' ({before} were there before)' if before else ''
    failed = f', {writer.problems} could not be predicted' if writer.problems else ''
    failed += f', {writer.undrawn} without a picture' if writer.undrawn else ''
    print(f'{writer.written} predicted{earlier}{failed}: {", ".join(map(str, files))}')
    return writer.problems + writer.undrawn


def main() -> int:
    """Run the tool."""
    problems: list[int] = []
    code = run_tool(lambda args: problems.append(predict(args)), parse_args())
    return code or int(any(problems))


if __name__ == '__main__':
    sys.exit(main())
