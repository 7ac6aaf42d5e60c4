"""A config for clouds of a user's own: an HDF5 file, or class folders of point files, which become one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from mmengine.config import Config
from numpy.typing import NDArray

from coc_core.checkpoints import load_content, read
from coc_core.errors import UserError
from coc_core.mm.data_checks.class_folders import files_below
from coc_core.mm.data_checks.problems import Problem
from coc_core.mm.own_data import splits
from coc_core.mm.own_data.class_lists import checked
from coc_core.mm.own_data.config_text import (
    Entries,
    assigned,
    base_path,
    counted,
    dataset,
    head,
    loader,
    path_text,
    pipelines,
    training,
)
from coc_core.mm.own_data.fitting import Budget
from coc_core.mm.own_data.folders import files_with, phase_folders, phase_of, subfolders
from coc_core.mm.own_data.plan import DataRequest, Plan, Writer
from coc_core.mm.own_data.starting import Start
from pointcloud.classifier import create_model
from pointcloud.clouds import split
from pointcloud.dataset import read as read_file
from pointcloud.point_files import STORED_POINTS, SUFFIXES, point_count, write_clouds
from pointcloud.variants import PointMLPConfig, get_config

BASE = 'finetune_pointcloud.py'
# Batch normalization of the head needs two.
BUDGET = Budget(samples=40_000, epochs=(20, 100), from_scratch=3, batch=(32, 16), size=(1024, 1024), smallest_batch=2)
HDF5_SUFFIXES = ('.h5', '.hdf5')
_LOOKED_AT = 50
_KIND = (
    'an HDF5 file (docs/point-clouds.md has the layout), a folder of such for training and test, or a folder with a '
    f'folder of point files ({" ".join(SUFFIXES)}) for each class'
)


@dataclass(frozen=True)
class Data:
    """What the config's data sets are.

    Attributes:
        classes: The names, in the order of their labels.
        counts: Clouds for training and for validation.
        points: Points of each cloud.
        datasets: Entries of each phase's data set.
        example: A file to try a model on.
        files: HDF5 files to be written.
        notes: What was made of the user's files.
    """

    classes: list[str]
    counts: dict[str, int]
    points: int
    datasets: dict[str, dict[str, str]]
    example: Path
    files: Mapping[Path, Writer] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def plan(request: DataRequest) -> Plan:
    """Plan a config for clouds.

    Raises:
        UserError: There are none, they cannot be read or split, or an argument does not fit.
    """
    request.check_data_is(_KIND, folder=False)
    base = Config.fromfile(str(base_path(BASE)), import_custom_modules=False)
    data = from_point_files(request) if has_class_folders(request.data) else from_files(request)
    arch = request.arch or 'pointmlp_coc'
    start = start_of_clouds(request.checkpoint, arch)
    taken = min(base.num_points, 2 ** int(np.log2(data.points)))
    count = data.counts['train']
    batch = BUDGET.fitting_batch(count, _training_bytes(get_config(arch), taken), request.machine)
    epochs = BUDGET.fitting_epochs(count, pretrained=start.pretrained)
    variables = {
        'arch': (arch, ''),
        'classes': (data.classes, 'in the order of their labels'),
        'num_points': (taken, f'of the {data.points} of each cloud, the first'),
        'batch_size': (batch, 'fewer where memory runs out: the learning rate follows'),
        'epochs': (epochs, 'the schedule follows'),
    }
    amounts = f'{count} clouds for training and {data.counts["val"]} for validation'
    summary = f'{arch} from {start.words} on {request.data}: {counted(data.classes)}, {amounts}.'
    text = head(request, BASE, summary, variables, imports='') + _body(request, start, data)
    text += training(base, start, decayed=False)
    return Plan(text, summary, epochs, data.example, data.files, data.notes)


def has_class_folders(data: Path) -> bool:
    """Whether clouds are files in class folders, in phases or not."""
    return data.is_dir() and not _hdf5_files(data) and bool(subfolders(data))


def _hdf5_files(folder: Path) -> list[Path]:
    return [folder / name for name in files_with(folder, HDF5_SUFFIXES)]


def from_files(request: DataRequest) -> Data:
    """Return the data of HDF5 files: one that is split, or one for each phase.

    Raises:
        UserError: A file cannot be read, there are several for a phase, or the classes are not named.
    """
    found: dict[str, Path] = {}
    for path in [request.data] if request.data.is_file() else _hdf5_files(request.data):
        phase = 'train' if path == request.data else phase_of(path.stem) or 'train'
        if phase in found:
            raise UserError(f'{found[phase]} and {path} are both for {phase}: name one of them with --data.')
        found[phase] = path
    if 'train' not in found:
        raise UserError(f'--data {request.data} has no HDF5 file for training: name {_KIND}.')
    # Of a training and a test file the test is what there is to compare epochs with.
    if 'val' not in found and 'test' in found:
        found['val'] = found.pop('test')
    contents = {phase: _content(path) for phase, path in found.items()}
    labels = {phase: content[1] for phase, content in contents.items()}
    for phase, numbers in labels.items():
        if numbers.min() < 0:
            raise UserError(f'{found[phase]} has the label {int(numbers.min())}: number classes 0, 1, 2, ...')
    highest = max(int(numbers.max()) for numbers in labels.values())
    classes = list(request.classes or map(str, range(highest + 1)))
    lowest = min(int(numbers.min()) for numbers in labels.values())
    if lowest == 1 and len(request.classes or range(highest)) == highest:
        raise UserError(
            f'{found["train"]} numbers its {highest} classes from 1: store label - 1, so that they begin at 0.'
        )
    if highest >= len(classes):
        raise UserError(f'--classes names {len(classes)} classes, but the labels go to {highest}: name {highest + 1}.')
    datasets = {phase: {'ann_file': repr(path_text(path))} for phase, path in found.items()}
    counts = {phase: len(numbers) for phase, numbers in labels.items()}
    if 'val' not in found:
        for phase in ('train', 'val'):
            counts[phase] = len(split(labels['train'], classes, phase, splits.SHARE, splits.SEED))
            words = f'dict(keep={phase!r}, fraction={splits.SHARE}, seed={splits.SEED})'
            datasets[phase] = {'ann_file': repr(path_text(found['train'])), 'validation': words}
    points = min(content[0].shape[1] for content in contents.values())
    return Data(classes, counts, points, datasets, found.get('val', found['train']))


def _content(path: Path) -> tuple[NDArray[Any], NDArray[Any]]:
    content = read_file(path)
    if isinstance(content, Problem):
        raise UserError(str(content))
    if not content[0].size:
        raise UserError(f'{path} holds no clouds.')
    return content


def from_point_files(request: DataRequest) -> Data:
    """Return the data of point files in class folders; they become HDF5 files beside the config.

    Raises:
        UserError: There are no point files, one cannot be read, or the folders of the phases differ.
    """
    if request.classes is not None:
        raise UserError('--classes: clouds in folders take their classes from the names of the folders. Rename those.')
    phases = phase_folders(request.data)
    if phases and 'train' not in phases:
        raise UserError(f'--data {request.data} has {" and ".join(phases)} but no folder train: name {_KIND}.')
    folders = phases or {'train': request.data}
    classes = checked(subfolders(folders['train']), f'{folders["train"]}, by its folders,')
    found = {phase: _labelled(folder, classes) for phase, folder in folders.items()}
    if 'val' not in found and 'test' in found:
        found['val'] = found.pop('test')
    if 'val' not in found:
        files, labels = found['train']
        sides = splits.split(labels, f'The clouds in {folders["train"]}')
        for phase, side in zip(('train', 'val'), sides, strict=True):
            found[phase] = ([files[place] for place in side], [labels[place] for place in side])
    files = found['train'][0]
    sizes = [point_count(path) for path in files[:: -(-len(files) // _LOOKED_AT)]]
    known = [size for size in sizes if size is not None]
    points = min(STORED_POINTS, max(64, int(median(known)))) if known else STORED_POINTS
    paths = {phase: request.folder / f'{phase}.h5' for phase in found}
    writers = {paths[phase]: partial(write_clouds, *found[phase], points) for phase in found}
    note = f'the point files become {", ".join(map(str, paths.values()))}: {points} points each, centered, of radius 1'
    datasets = {phase: {'ann_file': repr(path_text(path))} for phase, path in paths.items()}
    counts = {phase: len(files) for phase, (files, _) in found.items()}
    notes = (note, *_left_out(folders.values(), found.values()))
    return Data(classes, counts, points, datasets, paths['val'], writers, notes)


def _left_out(folders: Iterable[Path], found: Iterable[tuple[list[Path], list[int]]]) -> Iterator[str]:
    """Yield what is said of files that are not read, by their endings or as they lie beside the class folders."""
    read = {path for files, _ in found for path in files}
    for folder in folders:
        others = [path for name in files_below(str(folder), []) if (path := Path(name)) not in read]
        if others:
            kinds = Counter(path.suffix.lower() or 'without an ending' for path in others).most_common()
            told = ', '.join(f'{count} {ending}' for ending, count in kinds)
            yield f'{folder} has files that are not read: {told}, first {others[0]}'


def _labelled(folder: Path, classes: list[str]) -> tuple[list[Path], list[int]]:
    """Return the point files in the class folders of a folder, with their labels."""
    unknown = set(subfolders(folder)) - set(classes)
    if unknown:
        raise UserError(f'{folder} has the folder {min(unknown)}, of which there are no clouds for training.')
    files, labels = [], []
    for label, name in enumerate(classes):
        if (folder / name).is_dir():
            found = [folder / name / path for path in files_with(folder / name, SUFFIXES)]
            files += found
            labels += [label] * len(found)
    if not files:
        raise UserError(f'{folder} has no point files ({" ".join(SUFFIXES)}) in its folders: name {_KIND}.')
    return files, labels


def start_of_clouds(checkpoint: str | None, arch: str) -> Start:
    """Return the start of a training on clouds.

    Raises:
        UserError: The variant is unknown, or the checkpoint is not there, cannot be read, or holds another model.
    """
    model = create_model(arch)
    if checkpoint is None:
        return Start('random weights', False)
    report = load_content(model, read(checkpoint), checkpoint, strict=False)
    # A head for other classes is no misfit.
    wrong = [problem for problem in report.problems if 'head.' not in problem]
    if wrong:
        raise UserError(f'--checkpoint {checkpoint} does not start a model of --arch {arch}: {wrong[0]}')
    return Start(f'the model in {checkpoint}', True, load_from=checkpoint)


def _training_bytes(config: PointMLPConfig, points: int) -> float:
    """Estimate the memory that one cloud takes while a model learns from it, in float32."""
    numbers = 0.0
    for stage, dim in enumerate(config.dims[1:]):
        # About a dozen maps of all points of all groups for each block.
        blocks = config.pre_blocks[stage] * (2 if config.clustering else 1)
        numbers += points / 2 ** (stage + 1) * config.neighbors * dim * (2 + 12 * blocks * config.residual_expansion)
    return 4 * numbers


def _body(request: DataRequest, start: Start, data: Data) -> str:
    """Return the model and the data as the config has them."""
    config = get_config(request.arch or 'pointmlp_coc')
    backbone: Entries = {'arch': 'arch'}
    # Each stage halves the points, and a group is taken of those that a stage begins with.
    anchors = [f'min({most}, num_points // {2 << stage})' for stage, most in enumerate(config.anchors)]
    backbone |= {'anchors': f'({", ".join(anchors)})', 'neighbors': f'min({config.neighbors}, num_points // 8)'}
    lines = [assigned('model', {'backbone': backbone, 'head': {'num_classes': 'len(classes)'}})]
    lines += pipelines('num_points', ('train', 'test', 'tta'))
    if 'validation' in data.datasets['train']:
        lines.append(f'# {splits.SHARE:.0%} of each class is held back.')
    if data.files:
        lines.append(f'# Made of the files in {path_text(request.data)}: {data.notes[0].partition(": ")[2]}.')
    lines += [loader(phase, dataset(phase, own), request.machine.workers) for phase, own in data.datasets.items()]
    if 'test' not in data.datasets:
        lines.append('test_dataloader = val_dataloader')
    return '\n'.join(lines) + '\n'
