#!/usr/bin/env python
"""Paint what a model groups.

python tools/analysis_tools/visualize_clusters.py IMAGE... --config CONFIG --checkpoint FILE

Without --stage, --block and --head, or with --all, a contact sheet of every layer and head; with any of them, the
clusters of one head at the size of the image. IMAGE may be a folder, a GIF or a video; --model NAME does for a config.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from coc_core.mm.requirements import require

require('mmengine')

import numpy as np
from rich.progress import Progress

from coc_core.errors import UserError
from coc_core.files import check_out, replacing, write_bytes
from coc_core.mm.cli.options import add_config_options
from coc_core.mm.cli.start import run_tool
from coc_core.mm.explorer.viewer import ClusterViewer, View
from coc_core.mm.hooks.progress import terminal_console
from coc_core.visualization.activation import check_library
from coc_core.visualization.files import (
    frame_rate,
    is_film,
    list_images,
    read_frames,
    read_labels,
    write_film,
    write_image,
)
from coc_core.visualization.painting import check_alpha
from coc_core.visualization.recorder import cluster_layers
from coc_core.visualization.sheets import Sheet, contact_sheet, paint, single_panel, to_svg
from coc_core.visualization.statistics import ClusterStatistics, plot

SHORTEST_SIDE = 384


@dataclass(frozen=True)
class Item:
    """A file to look at, and the name of what is written, without suffix."""

    path: Path
    name: Path


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description='Paint the clusters that a model forms on images.')
    parser.add_argument('images', nargs='+', type=Path, metavar='IMAGE', help='image, folder, GIF or video')
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument('--config', help='the config file of the model, of any image task')
    source.add_argument(
        '--model', metavar='NAME', help='a variant such as coc_small; --cfg-options are its fields then'
    )
    parser.add_argument('--checkpoint', required=True, help='the checkpoint file, of this project or a published one')
    parser.add_argument('--stage', type=int, help='stage from 0, negative from the end (default: the last)')
    parser.add_argument('--block', type=int, help='block in the stage, likewise (default: the last)')
    parser.add_argument('--head', type=int, help='head from 0 (default: 0)')
    parser.add_argument('--all', action='store_true', help='a contact sheet of all stages, blocks and heads (default)')
    parser.add_argument(
        '--size',
        type=int,
        nargs='+',
        metavar='N',
        help="height and width that the network sees, or one number for both (default: the config's test pipeline; "
        'with --model 224 on the shorter side)',
    )
    parser.add_argument('--alpha', type=float, default=0.6, help='strength of the colors, 0 to 1 (default: 0.6)')
    parser.add_argument(
        '--format', nargs='+', choices=['png', 'svg'], default=['png'], help='of pictures (default: png)'
    )
    parser.add_argument('--video', action='store_true', help='write films as MP4 instead of GIF')
    parser.add_argument('--statistics', action='store_true', help='write numbers on every layer: statistics.json, .png')
    parser.add_argument('--cam', action='store_true', help='of a classifier: Grad-CAM of the predicted class beside it')
    parser.add_argument(
        '--labels', type=Path, help='label map of the one image, or folder of them under the names of the images (.png)'
    )
    parser.add_argument('--ignore-label', type=int, default=255, help='label that counts for nothing (default: 255)')
    parser.add_argument('--out', type=Path, default=Path('pictures'), help='folder of what is written')
    add_config_options(parser)
    return parser.parse_args()


def visualize(args: argparse.Namespace) -> None:
    """Look at every file and says what was written."""
    check_options(args)
    items = find_items(args.images, args.out)
    if args.labels and not args.labels.is_dir() and len(items) > 1:
        raise UserError(f'--labels {args.labels} is one label map, but there are {len(items)} images: name a folder.')
    make, source = (ClusterViewer.from_config, args.config) if args.config else (ClusterViewer.from_name, args.model)
    viewer = make(source, args.checkpoint, args.cfg_options)
    check_layer(args, viewer)
    statistics = ClusterStatistics(args.ignore_label) if args.statistics or args.labels else None
    if args.labels and viewer.crops:
        raise UserError(f'--labels: the test pipeline of {args.config} cuts parts of the image off: give --size.')
    failures = []
    unexpected = []
    for item, say in tracked(items):
        try:
            say(look_at(item, viewer, statistics, args))
        except UserError as error:
            failures.append(str(error))
        except Exception as error:
            reason = ' '.join(f'{type(error).__name__}: {error}'.split())
            failures.append(f'{item.path} cannot be looked at ({reason}).')
            unexpected.append(error)
    if len(unexpected) == len(items):
        # Then it is no image's fault.
        raise unexpected[0]
    if statistics is not None and statistics.images:
        try:
            write_statistics(statistics, args.out)
        except UserError as error:
            failures.append(str(error))
    if failures:
        count = f'{len(failures)} of {len(items)} files failed: ' if len(items) > 1 else ''
        rest = f' (and {len(failures) - 5} more)' if len(failures) > 5 else ''
        raise UserError(count + ' '.join(failures[:5]) + rest)


def check_options(args: argparse.Namespace) -> None:
    """Raise UserError where options do not go together, or a number is impossible."""
    if args.all and (args.stage, args.block, args.head) != (None, None, None):
        raise UserError('--all shows every layer and head: leave it out, or leave --stage, --block and --head out.')
    if args.size is not None and (len(args.size) > 2 or min(args.size) < 1):
        raise UserError(f'--size {" ".join(map(str, args.size))}: give height and width, or one number for both.')
    try:
        check_alpha(args.alpha)
    except UserError as error:
        raise UserError(f'--{error}') from error
    if args.cam:
        check_library()
    if args.labels is not None and not args.labels.exists():
        raise UserError(f'--labels {args.labels} does not exist.')
    check_out(args.out)


def check_layer(args: argparse.Namespace, viewer: ClusterViewer) -> None:
    """Fill in --stage, --block and --head where one of them is given; raises UserError where there is no such."""
    args.all = (args.stage, args.block, args.head) == (None, None, None)
    if args.all:
        return
    stage, block = (-1 if place is None else place for place in (args.stage, args.block))
    args.head = args.head or 0
    try:
        ((args.stage, args.block),) = cluster_layers(viewer.model, stages=[stage], blocks=[block])
    except UserError as error:
        raise UserError(f'--{error}') from error
    heads = viewer.heads[args.stage, args.block]
    if not 0 <= args.head < heads:
        raise UserError(f'--head {args.head} does not exist: stage {args.stage} has the heads 0 to {heads - 1}.')


def find_items(paths: list[Path], out: Path) -> list[Item]:
    """Return the files, those in folders by their place there; raises UserError where two would have one name.

    What lies below ``out``, which an earlier run may have written, is passed over.
    """
    items = []
    for path in paths:
        found = list_images(path, leave_out=out) if path.is_dir() else [path]
        items += [
            Item(file, file.relative_to(path if path.is_dir() else path.parent).with_suffix('')) for file in found
        ]
    seen: dict[Path, Path] = {}
    for item in items:
        other = seen.setdefault(item.name, item.path)
        if other != item.path:
            raise UserError(f'{other} and {item.path} would both be written as {item.name}: run the tool for each.')
    return items


def tracked(items: list[Item]) -> Iterator[tuple[Item, Callable[[str], object]]]:
    """Yield the files with a way to say something, above a progress bar for several files on a terminal."""
    console = terminal_console() if len(items) > 1 else None
    if console is None:
        yield from ((item, print) for item in items)
        return
    with Progress(console=console) as progress:
        for item in progress.track(items, description='images'):
            yield item, progress.console.print


def look_at(item: Item, viewer: ClusterViewer, statistics: ClusterStatistics | None, args: argparse.Namespace) -> str:
    """Write the pictures of one file; returns what is to be said of it."""
    if is_film(item.path):
        return film(item, viewer, args)
    image = viewer.read(item.path)
    view = run(viewer, image, args, similarities=statistics is not None)
    if statistics is not None:
        statistics.add(view.layers, labels_of(item, args.labels, image.shape))
    sheet = sheet_of(view, args)
    path = args.out / f'{item.name}{ending(args)}'
    for kind in args.format:
        target = path.with_name(f'{path.name}.{kind}')
        if kind == 'png':
            write_image(target, paint(sheet))
        else:
            write_bytes(target, to_svg(sheet).encode())
    written = ', '.join(str(path.with_name(f'{path.name}.{kind}')) for kind in args.format)
    return f'{written}: {view.prediction}' if view.prediction else written


def film(item: Item, viewer: ClusterViewer, args: argparse.Namespace) -> str:
    """Write a film with the clusters of each frame of a GIF or a video."""
    if args.statistics or args.labels:
        raise UserError(f'{item.path} is a film: --statistics and --labels are for images.')
    path = args.out / f'{item.name}{ending(args)}.{"mp4" if args.video else "gif"}'
    frames = (paint(sheet_of(run(viewer, frame, args), args)) for frame in read_frames(item.path))
    rate = frame_rate(item.path)
    write_film(path, frames, rate)
    return str(path)


def run(viewer: ClusterViewer, image: np.ndarray, args: argparse.Namespace, *, similarities: bool = False) -> View:
    """Look at one image, at the layers that are shown; statistics are of all."""
    size = None if args.size is None else (args.size[0], args.size[-1])
    every = args.all or similarities
    stages, blocks = (None, None) if every else ([args.stage], [args.block])
    return viewer.look(image, size=size, stages=stages, blocks=blocks, similarities=similarities, activation=args.cam)


def sheet_of(view: View, args: argparse.Namespace) -> Sheet:
    """Return the picture that the options ask for."""
    if args.all:
        title = f'predicted: {view.prediction}' if view.prediction else Path(args.config or args.model).stem
        activations = [] if view.activation is None else [view.activation]
        return contact_sheet([view.image], [view.layers], title=title, alpha=args.alpha, activations=activations)
    layer = next(layer for layer in view.layers if (layer.stage, layer.block) == (args.stage, args.block))
    return single_panel(
        view.image, layer, args.head, alpha=args.alpha, at_least=SHORTEST_SIDE, activation=view.activation
    )


def ending(args: argparse.Namespace) -> str:
    """Return what a picture's name says of its content."""
    return '_clusters' if args.all else f'_stage{args.stage}_block{args.block}_head{args.head}'


def labels_of(item: Item, labels: Path | None, size: tuple[int, ...]) -> np.ndarray | None:
    """Return an image's label map, where there are any; raises UserError where it has another aspect."""
    if labels is None:
        return None
    path = labels / item.name.with_suffix('.png') if labels.is_dir() else labels
    found = read_labels(path)
    rows, columns = found.shape
    # A map may be smaller than its image, each side of it rounded.
    if abs(rows * size[1] - columns * size[0]) > size[0] + size[1]:
        raise UserError(
            f'The label map {path} has {columns}x{rows} pixels, its image {size[1]}x{size[0]}, turned where its EXIF '
            'orientation says so: give a map of the image as it is shown.'
        )
    return found


def write_statistics(statistics: ClusterStatistics, out: Path) -> None:
    """Write the numbers and their plot, and says where."""
    summary = statistics.summary()
    write_bytes(out / 'statistics.json', json.dumps(summary, indent=2).encode())
    with replacing(out / 'statistics.png') as beside:
        plot(summary).savefig(beside, dpi=110)
    print(f'{out / "statistics.json"}, {out / "statistics.png"}')


if __name__ == '__main__':
    sys.exit(run_tool(visualize, parse_args()))
