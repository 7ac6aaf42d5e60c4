#!/usr/bin/env python
"""Draw loss, metrics and learning rate of one or several trainings from mmengine's logs.

python tools/analysis_tools/plot_logs.py work_dirs/demo/classification --out curves.png

A training that was interrupted and went on is one curve. So is a folder of tools/analysis_tools/run_seeds.py: the mean
of its seeds, in a band from the lowest to the highest.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from coc_core.mm.requirements import require

require('mmengine', 'matplotlib')

from matplotlib import rc_context
from matplotlib.figure import Figure

from coc_core.errors import UserError
from coc_core.files import replacing
from coc_core.mm.cli.options import add_debug_option
from coc_core.mm.cli.start import run_tool

# Not results, and the parts of a COCO metric, which follow the whole.
_NO_METRICS = {'data_time', 'time', 'step', 'epoch', 'iter', 'memory'}
_PARTS = ('_50', '_75', '_s', '_m', '_l')


@dataclass
class Run:
    """The curves of one work folder; a curve has the value at each iteration.

    Attributes:
        name: What the legend calls it.
        training: Curves of the training lines, by name: ``loss``, ``lr`` and others.
        validation: Curves of the validation lines, by name.
        seeds: Runs of which this one is the mean.
    """

    name: str
    training: dict[str, dict[int, float]] = field(default_factory=dict)
    validation: dict[str, dict[int, float]] = field(default_factory=dict)
    seeds: list[Run] = field(default_factory=list)


def read_run(folder: Path) -> Run:
    """Read all logs of a work folder, the older ones first; what a later one repeats counts.

    Raises:
        UserError: The folder is not there, or has no log of a training.
    """
    if not folder.is_dir():
        raise UserError(f'The work folder {folder} does not exist.')
    if seeds := [read_run(seed) for seed in sorted(folder.glob('seed-*')) if seed.is_dir()]:
        return _mean(folder.name, seeds)
    run = Run(folder.name or folder.resolve().name)
    parts = [Part(path) for path in sorted(folder.glob('*/vis_data/scalars.json'))]
    for part in _in_order([part for part in parts if part.lines], folder):
        _add(part, run)
    if not run.training:
        raise UserError(
            f'{folder} holds no log of a training (TIME/vis_data/scalars.json): name the work folder of one.'
        )
    _tell_gaps(run, folder)
    return run


class Part:
    """The log of one start of a training.

    Attributes:
        lines: Whether it is one of training, its iteration, and its numbers, for each line.
        iterations: Those of the lines of training.
    """

    def __init__(self, path: Path) -> None:
        self.lines: list[tuple[bool, int, dict[str, float]]] = []
        try:
            text = path.read_text(errors='replace')
        except OSError as error:
            raise UserError(f'The log {path} cannot be read: {error.strerror}.') from error
        iteration = 0
        for line in text.splitlines():
            try:
                values = json.loads(line)
                numbers = {key: value for key, value in values.items() if isinstance(value, (int, float))}
            except (ValueError, AttributeError):
                # A training that was killed may leave half a line.
                continue
            training = 'lr' in numbers or 'iter' in numbers
            if training:
                # A loop over epochs logs `iter`, and `step` is the same; validation lines have the epoch as their step.
                iteration = int(numbers.get('iter', numbers.get('step', iteration)))
            self.lines.append((training, iteration, numbers))
        self.iterations = [at for training, at, _ in self.lines if training] or [0]

    @property
    def start(self) -> int:
        """The first iteration that is logged."""
        return self.iterations[0]


def _in_order(parts: list[Part], folder: Path) -> list[Part]:
    """Return the parts of a training one after the other.

    Their folders are named by the clock, of whichever machine and time zone. Where one would go on from what none
    before it has reached, and none does where their iterations order them, these do.
    """
    ordered = sorted(parts, key=lambda part: part.start)
    if ordered == parts or not _has_gap(parts) or _has_gap(ordered):
        return parts
    print(
        f'{folder}: the parts of this training are put in the order of their iterations, for by the names of their '
        'folders it would go on from what was not reached yet.',
        file=sys.stderr,
    )
    return ordered


def _has_gap(parts: list[Part]) -> bool:
    # The first line may come one interval after the checkpoint, and that as long after the last line before.
    interval = max((b - a for part in parts for a, b in pairwise(part.iterations)), default=0)
    reached = 0
    for part in parts:
        if part.start > reached + 2 * interval:
            return True
        reached = max(reached, *part.iterations)
    return False


def _tell_gaps(run: Run, folder: Path) -> None:
    """Say which curves have values that are no number: no line can show them."""
    for name, curve in {**run.training, **run.validation}.items():
        lost = sorted(at for at, value in curve.items() if not math.isfinite(value))
        if lost:
            print(
                f'{folder}: {name} is no finite number at {len(lost)} of {len(curve)} places, first at iteration '
                f'{lost[0]}: its curve has a gap there.',
                file=sys.stderr,
            )


def _mean(name: str, seeds: list[Run]) -> Run:
    """Return the mean of runs where all of them have a value."""
    mean = Run(name, seeds=seeds)
    for kind in ('training', 'validation'):
        for key in dict.fromkeys(key for seed in seeds for key in getattr(seed, kind)):
            lacking = [seed.name for seed in seeds if key not in getattr(seed, kind)]
            if lacking:
                print(f'{name}: {key} is left out, as {", ".join(lacking)} has none.', file=sys.stderr)
                continue
            curves = [getattr(seed, kind)[key] for seed in seeds]
            common = [at for at in curves[0] if all(at in curve for curve in curves)]
            getattr(mean, kind)[key] = {at: statistics.mean(curve[at] for curve in curves) for at in common}
    return mean


def _add(part: Part, run: Run) -> None:
    begun = False
    for training, iteration, numbers in part.lines:
        if training and not begun:
            _forget_from(run, iteration)
            begun = True
        curves = run.training if training else run.validation
        for key, value in numbers.items():
            if key not in _NO_METRICS:
                curves.setdefault(key, {})[iteration] = float(value)


def _forget_from(run: Run, iteration: int) -> None:
    """Drop what an earlier log has beyond the checkpoint from which the training of this one went on."""
    for curves in (run.training, run.validation):
        for curve in curves.values():
            for later in [at for at in curve if at >= iteration]:
                del curve[later]


def metrics_of(runs: list[Run], wanted: list[str] | None) -> list[str]:
    """Return the validation metrics to draw.

    Raises:
        UserError: A wanted one is in no log.
    """
    found = list(dict.fromkeys(name for run in runs for name in run.validation))
    for name in wanted or ():
        if name not in found:
            known = ', '.join(found) if found else 'none'
            raise UserError(f'--metric {name} is in no log: there are {known}.')
        for run in runs:
            if name not in run.validation:
                print(f'{run.name} has no {name}: it has no curve there.', file=sys.stderr)
    return wanted or [name for name in found if not name.endswith(_PARTS)]


@rc_context({'text.parse_math': False})
def draw(runs: list[Run], metrics: list[str]) -> Figure:
    """Draw the curves; a name may have dollar signs."""
    parts = [('loss', 'training'), *((name, 'validation') for name in metrics), ('lr', 'training')]
    columns = min(3, len(parts))
    rows = -(-len(parts) // columns)
    figure = Figure(figsize=(4.6 * columns, 3.1 * rows + 0.5), layout='constrained')
    colors = ('#0072B2', '#D55E00', '#009E73', '#CC79A7', '#E69F00', '#56B4E9', '#000000')
    for place, (name, kind) in enumerate(parts):
        axes = figure.add_subplot(rows, columns, place + 1)
        for i, run in enumerate(runs):
            curve = sorted(getattr(run, kind).get(name, {}).items())
            marker = 'o' if kind == 'validation' else None
            style = dict(color=colors[i % len(colors)], linestyle=('-', '--', ':')[i // len(colors) % 3])
            axes.plot(
                *zip(*curve, strict=True) if curve else ([], []), label=run.name, marker=marker, ms=3.5, lw=1.4, **style
            )
            if run.seeds:
                each = [[getattr(seed, kind).get(name, {})[at] for at, _ in curve] for seed in run.seeds]
                low, high = ([limit(values) for values in zip(*each, strict=True)] for limit in (min, max))
                axes.fill_between([at for at, _ in curve], low, high, color=style['color'], alpha=0.2, lw=0)
        axes.set_title({'lr': 'learning rate', 'loss': 'training loss'}.get(name, name), fontsize=11)
        axes.set_xlabel('iteration', fontsize=9)
        axes.tick_params(labelsize=8)
        axes.grid(alpha=0.3)
    # A legend leaves out what begins with an underscore.
    names = [f' {run.name}' if run.name.startswith('_') else run.name for run in runs]
    figure.legend(figure.axes[0].lines, names, loc='outside lower center', ncols=min(4, len(runs)))
    return figure


def save(figure: Figure, path: Path) -> None:
    """Write the picture.

    Raises:
        UserError: It cannot be written.
    """
    if path.suffix not in ('.png', '.svg', '.pdf'):
        raise UserError(f'--out {path} must end in .png, .svg or .pdf.')
    with replacing(path) as beside:
        figure.savefig(beside, dpi=110)


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('work_dirs', nargs='+', type=Path, metavar='WORK_DIR', help='work folder of a training')
    parser.add_argument(
        '--metric', nargs='+', help='validation metrics to draw (default: all but parts of COCO metrics)'
    )
    parser.add_argument(
        '--out',
        type=Path,
        default=Path('pictures/curves.png'),
        help='.png, .svg or .pdf (default: pictures/curves.png)',
    )
    add_debug_option(parser)
    return parser.parse_args()


def plot(args: argparse.Namespace) -> None:
    """Draw the curves of all work folders."""
    runs = [read_run(folder) for folder in args.work_dirs]
    names = [run.name for run in runs]
    for run, folder in zip(runs, args.work_dirs, strict=True):
        # Two folders of one name are told apart by their paths.
        run.name = str(folder) if names.count(run.name) > 1 else run.name
    save(draw(runs, metrics_of(runs, args.metric)), args.out)
    print(args.out)


if __name__ == '__main__':
    sys.exit(run_tool(plot, parse_args()))
