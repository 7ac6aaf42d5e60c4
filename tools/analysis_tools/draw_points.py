#!/usr/bin/env python
"""Draw clouds of a config's test data.

python tools/analysis_tools/draw_points.py CONFIG CHECKPOINT --samples 0 5 [--color ...]

`--color class` shows the class that the model predicts, `--color cluster` what a stage makes one of: each point goes to
the nearest anchor of the first stage, that one to the nearest of the second, and so on. `--color similarity` shows how
alike the points that a stage groups are to the centers of their groups, in one of its clustering layers.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from coc_core.mm.requirements import require

require('mmengine', 'matplotlib')

import matplotlib
import torch

from coc_core import checkpoints
from coc_core.checkpoints.loading import tell_differences
from coc_core.checkpoints.reading import check_file
from coc_core.errors import UserError
from coc_core.files import check_out
from coc_core.mm.cli.options import add_config_options
from coc_core.mm.cli.start import run_tool
from coc_core.mm.configs import load_config
from coc_core.mm.mistakes import building
from coc_core.mm.models import build_model
from coc_core.mm.trained_classes import tell_other_classes
from pointcloud import PointCloudClassifier, pictures
from pointcloud.grouping import gather_points
from pointcloud.recorder import GroupSimilarityRecorder
from pointcloud.registry import DATASETS


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('config', help='the config file')
    parser.add_argument('checkpoint', help='the checkpoint file')
    parser.add_argument('--samples', nargs='+', type=int, default=[0, 1, 2, 3], help='places in the test data')
    parser.add_argument('--color', choices=['class', 'cluster', 'similarity'], default='class')
    parser.add_argument('--stage', type=int, default=-1, help='the stage whose clusters are shown (default: the last)')
    parser.add_argument('--block', type=int, default=-1, help='its clustering layer for similarity (default: last)')
    parser.add_argument('--out', type=Path, default=Path('pictures'), help='folder of the pictures')
    add_config_options(parser)
    return parser.parse_args()


def draw(args: argparse.Namespace) -> None:
    """Draw the samples into one PNG file each."""
    cfg = load_config(args.config, args.cfg_options)
    if cfg.get('default_scope') != 'pointcloud':
        raise UserError(f'{args.config} is no config of a point-cloud model.')
    if cfg.get('test_dataloader') is None:
        raise UserError(f'{args.config} has no test data to draw: it has no test_dataloader.')
    check_file(Path(args.checkpoint).expanduser())
    check_out(args.out)
    model = build_model(cfg, args.config).eval()
    content = checkpoints.read(args.checkpoint)
    tell_differences(checkpoints.load_content(model, content, args.checkpoint))
    with building('the test data'):
        dataset = DATASETS.build(cfg.test_dataloader.dataset)
    tell_other_classes(content, dataset.metainfo.get('classes'), args.checkpoint)
    stages = len(model.backbone.stages)
    if not -stages <= args.stage < stages:
        raise UserError(f'--stage {args.stage} does not exist: the model has the stages 0 to {stages - 1}.')
    outside = [place for place in args.samples if not 0 <= place < len(dataset)]
    if outside:
        raise UserError(f'--samples {outside[0]} does not exist: the test data has {len(dataset)} clouds.')
    for place in args.samples:
        sample = dataset[place]
        path = args.out / f'{place:05d}_{args.color}.png'
        draw_cloud(model, sample, dataset.metainfo['classes'], args, path)
        print(path)


def draw_cloud(
    model: PointCloudClassifier, sample: dict, classes: list[str], args: argparse.Namespace, path: Path
) -> None:
    """Predict and draws one cloud."""
    points = sample['inputs']
    with torch.no_grad():
        scores = model(points[None])[0].softmax(dim=-1)
    predicted, label = int(scores.argmax()), int(sample['data_samples'].gt_label)
    colors = matplotlib.colormaps['tab20'].colors
    if args.color == 'class':
        chosen = [colors[predicted % 20]] * len(points)
    elif args.color == 'cluster':
        chosen = [colors[i % 20] for i in clusters_of(model, points, args.stage).tolist()]
    else:
        points, chosen = similarities_of(model, points, args.stage, args.block)
    title = f'{classes[label]}; predicted: {classes[predicted]}, {scores[predicted]:.2f}'
    bar = 'mean cosine with the centers of its groups' if args.color == 'similarity' else ''
    pictures.draw_cloud(path, points.numpy(), chosen, title, bar=bar)


def similarities_of(
    model: PointCloudClassifier, points: torch.Tensor, stage: int, block: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the points that are in groups of a stage, [P', 3], and how alike they are to the centers there, [P']."""
    with torch.no_grad(), GroupSimilarityRecorder(model, stage, block) as recorder:
        model(points[None])
    found = recorder.similarities()
    similarity = found.of_points()
    grouped = ~similarity.isnan()
    return found.coordinates[grouped], similarity[grouped]


def clusters_of(model: PointCloudClassifier, points: torch.Tensor, last: int) -> torch.Tensor:
    """Return for each point the anchor of stage ``last`` that it ends at: int64 [P]."""
    own = torch.arange(len(points))
    coordinates = points[None]
    stages = list(model.backbone.stages)
    for stage in stages[: last % len(stages) + 1]:
        anchors = gather_points(coordinates, stage.group(coordinates)[0])
        own = torch.cdist(coordinates, anchors)[0].argmin(dim=-1)[own]
        coordinates = anchors
    return own


if __name__ == '__main__':
    sys.exit(run_tool(draw, parse_args()))
