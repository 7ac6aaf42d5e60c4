#!/usr/bin/env python
"""Time models or the clustering operator side by side.

python tools/analysis_tools/benchmark.py --model coc_tiny --peers resnet18

Says time, throughput, peak memory, FLOPs and parameters of evaluation and training steps, against the reference model
and what the machine can do at best. `--suite` measures what the docs compare. See docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
# torch reads it when it is imported; why: tools/dist_common.sh.
if 'OMP_WAIT_POLICY' not in os.environ:
    os.environ.setdefault('GOMP_SPINCOUNT', '3000')

from coc_core.mm.requirements import require

require('prettytable')

import torch

from benchmarks import report
from benchmarks.cases import MODES, PEERS, PRECISIONS, Case, ModelCase, OperatorCase, suite
from benchmarks.running import run
from coc_core import VARIANTS
from coc_core.errors import UserError
from coc_core.ops import check_impl


def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument('--model', nargs='+', help='Context Clusters (coc_tiny, coc_small-49, ...), or models of timm')
    what.add_argument('--operator', action='store_true', help='the clustering operator alone')
    what.add_argument('--suite', action='store_true', help='the models and shapes that the docs compare')
    what.add_argument('--render', type=Path, metavar='FILE.json', help='print the tables of a result as Markdown')
    models = parser.add_argument_group('models')
    models.add_argument('--center-grid', type=positive, metavar='N', help='N x N centers in every region')
    models.add_argument('--dense', action='store_true', help='backbones with four outputs instead of classifiers')
    models.add_argument('--size', nargs=2, type=positive, default=(224, 224), metavar=('H', 'W'))
    models.add_argument('--batch-size', type=positive, default=8)
    models.add_argument(
        '--peers',
        nargs='*',
        default=(),
        metavar='NAME',
        help=f'models of timm beside them; without a name {" ".join(PEERS)}',
    )
    models.add_argument(
        '--mixer',
        nargs='+',
        default=(),
        metavar='MODULE:CLASS',
        help='Context Clusters also with mixers of your own (distance_mixer:DistanceMixer)',
    )
    models.add_argument('--compile', action='store_true', help='also compiled by torch.compile, fused and plain')
    operator = parser.add_argument_group('operator')
    operator.add_argument(
        '--shape',
        nargs=7,
        type=positive,
        action='append',
        metavar=('B', 'H', 'W', 'HEADS', 'D', 'CENTERS', 'REGIONS'),
        help='points and values, then centers and regions along each side; may be repeated',
    )
    parser.add_argument('--busy', action='store_true', help='of models: beside a busy process for each core')
    parser.add_argument('--mode', nargs='+', choices=MODES, default=MODES)
    parser.add_argument(
        '--precision', nargs='+', choices=PRECISIONS, help='of autocast (default: fp32; suite on a GPU: bf16)'
    )
    parser.add_argument('--impl', nargs='+', default=['auto'], help='implementations of the clustering operator')
    parser.add_argument(
        '--reference', action=argparse.BooleanOptionalAction, default=True, help='the reference model too'
    )
    parser.add_argument('--device', default='cpu', help='cpu, cuda or cuda:N')
    parser.add_argument('--threads', type=positive, help="of the CPU (default: torch's)")
    parser.add_argument(
        '--rounds', type=positive, help='how often each is timed (default: 7, in the suite as it needs)'
    )
    parser.add_argument('--out', type=Path, metavar='FILE.json', help='write the results there')
    args = parser.parse_args(arguments)
    if args.operator != bool(args.shape):
        parser.error('--operator and --shape B H W HEADS D CENTERS REGIONS go together')
    of_models = args.dense or args.center_grid or args.compile or args.busy or args.mixer or args.peers != ()
    if not args.model and of_models:
        parser.error('--dense, --center-grid, --compile, --busy, --mixer and --peers are for --model')
    if args.mixer and not any(is_context_cluster(name) for name in args.model):
        parser.error('--mixer takes the place of the clustering layer: name a Context Cluster in --model')
    return args


def positive(text: str) -> int:
    """Read a number of at least 1."""
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def measure(args: argparse.Namespace) -> None:
    """Measure, print, write."""
    if args.render:
        print(report.render(report.read(args.render), markdown=True))
        return
    if args.out:
        report.check_writable(args.out)
    for impl in args.impl:
        check_impl(impl)
    device = device_of(args.device)
    if args.threads:
        torch.set_num_threads(args.threads)
    precisions = args.precision or (['bf16'] if args.suite and device.type == 'cuda' else ['fp32'])
    progress = run(
        cases_of(args, device.type),
        precisions=tuple(dict.fromkeys(precisions)),
        impls=tuple(dict.fromkeys(args.impl)),
        reference=args.reference,
        device=device,
        tell=lambda line: print(f'... {line}', file=sys.stderr, flush=True),
    )
    for results in progress:
        if args.out:
            report.write(results, args.out)
    print(report.render(results, markdown=False))


def device_of(name: str) -> torch.device:
    """Return the device of that name, if there is one."""
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ('cpu', 'cuda'):
        raise UserError(f'--device {name}: choose cpu, cuda or cuda:N.')
    if device.type == 'cuda' and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(f'--device {name}: PyTorch {torch.__version__} finds no such GPU here.')
    if device.type == 'cuda':
        torch.cuda.set_device(device)
    return device


def cases_of(args: argparse.Namespace, device_type: str) -> list[Case]:
    """Return what the command line asks for."""
    changes = {'modes': tuple(dict.fromkeys(args.mode))} | ({'rounds': args.rounds} if args.rounds else {})
    if args.suite:
        return [replace(case, **changes) for case in suite(device_type)]
    if args.operator:
        return [OperatorCase(tuple(shape[:5]), *shape[5:], **changes) for shape in args.shape]
    grid = f'-{args.center_grid**2}' if args.center_grid else ''
    ours = dict.fromkeys(f'{name}{grid}' for name in args.model if is_context_cluster(name))
    # A bare --peers is an empty list.
    named = PEERS if args.peers == [] else args.peers
    theirs = dict.fromkeys([*(name for name in args.model if not is_context_cluster(name)), *named])
    changes |= dict(mixers=tuple(dict.fromkeys(args.mixer)), compiled=args.compile, busy=args.busy)
    return [ModelCase(tuple(ours), tuple(args.size), args.batch_size, args.dense, tuple(theirs), **changes)]


def is_context_cluster(name: str) -> bool:
    """Whether a name is meant for one of ours."""
    return name.startswith('coc_') or name in VARIANTS


def main(arguments: list[str] | None = None) -> int:
    """Return the exit code, 2 after a mistake or an implementation that is not equal."""
    args = parse_args(arguments)
    try:
        measure(args)
    except UserError as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    return 0


if __name__ == '__main__':
    sys.exit(main())
