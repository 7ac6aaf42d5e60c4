"""A config for images in class folders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mmengine.config import Config

from coc_core.checkpoints.layouts import CLASSIFICATION
from coc_core.errors import UserError
from coc_core.mm.data_checks.inspection import shown
from coc_core.mm.own_data.config_text import (
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
from coc_core.mm.own_data.fitting import Budget, training_bytes
from coc_core.mm.own_data.folders import files_with, phase_folders, sizes_of, subfolders
from coc_core.mm.own_data.plan import DataRequest, Plan, Writer, lines_writer
from coc_core.mm.own_data.splits import SHARE, split
from coc_core.mm.own_data.starting import Start, start_of_images
from coc_core.variants import get_config

BASE = 'finetune_classification.py'
BUDGET = Budget(samples=20_000, epochs=(15, 100), from_scratch=3, batch=(64, 32), size=(224, 128))
_KIND = 'a folder with a folder of images for each class, or with such folders in train, val and test'


@dataclass(frozen=True)
class Images:
    """Images in the class folders of a folder.

    Attributes:
        folder: The folder.
        classes: Its class folders, in the order of their labels.
        names: The images' paths within it.
        labels: The label of each.
    """

    folder: Path
    classes: list[str]
    names: list[str]
    labels: list[int]

    def paths(self, places: Sequence[int] | None = None) -> list[Path]:
        """Return the paths of some images, or of all."""
        return [self.folder / self.names[place] for place in (range(len(self.names)) if places is None else places)]


@dataclass(frozen=True)
class Data:
    """What the config's data sets are.

    Attributes:
        classes: The names, in the order of their labels.
        train: The training images.
        val: The validation images.
        datasets: Entries of each phase's data set.
        files: Lists to be written.
        notes: What is left out.
    """

    classes: list[str]
    train: list[Path]
    val: list[Path]
    datasets: dict[str, dict[str, str]]
    files: Mapping[Path, Writer] = field(default_factory=dict)
    notes: Sequence[str] = ()


def plan(request: DataRequest) -> Plan:
    """Plan a config for images in class folders, split where there are no training and validation folders.

    Raises:
        UserError: The folder is not laid out so, or an argument does not fit.
    """
    request.check_data_is(_KIND, folder=True)
    if request.classes is not None:
        raise UserError('--classes: a classification takes its classes from the names of the folders. Rename those.')
    base = Config.fromfile(str(base_path(BASE)), import_custom_modules=False)
    data = arranged(request, base.extensions)
    arch = request.arch or 'coc_small'
    start = start_of_images(request.checkpoint, arch, CLASSIFICATION, out_indices=(3,), output_norm='classification')
    sides = [min(size) for size in sizes_of(data.train)]
    size = BUDGET.fitting_size(sides, request.machine)
    batch = BUDGET.fitting_batch(len(data.train), training_bytes(get_config(arch), size), request.machine)
    epochs = BUDGET.fitting_epochs(len(data.train), pretrained=start.pretrained)
    found = f'{counted(data.classes)}, {len(data.train)} images for training and {len(data.val)} for validation'
    variables = {
        'arch': (arch, ''),
        'classes': (data.classes, "the folders' names, in the order of their labels"),
        'image_size': (size, 'pixels of a side'),
        'batch_size': (batch, 'fewer where memory runs out: the learning rate follows'),
        'epochs': (epochs, 'the schedule follows'),
    }
    summary = f'{arch} from {start.words} on {request.data}: {found}.'
    text = head(request, BASE, summary, variables) + _body(request, start, data)
    return Plan(text + training(base, start, decayed=True), summary, epochs, data.val[0], data.files, data.notes)


def arranged(request: DataRequest, extensions: Sequence[str]) -> Data:
    """Find or split the training and validation images.

    Raises:
        UserError: The folder is not laid out so.
    """
    phases = phase_folders(request.data)
    if phases and 'train' not in phases:
        here = ' and '.join(folder.name for folder in phases.values())
        raise UserError(f'--data {request.data} has {here} but no folder train: name {_KIND}.')
    train = images_in(phases.get('train', request.data), extensions)
    beside = set(subfolders(request.data)) - {folder.name for folder in phases.values()} if phases else ()
    notes = [f'{request.data} has {shown(sorted(beside), 10)} beside its folders of phases, left out'] if beside else []
    prefixes = {phase: {'data_prefix': repr(path_text(folder))} for phase, folder in phases.items()}
    if 'val' in phases:
        val = images_in(phases['val'], extensions)
        return Data(train.classes, train.paths(), val.paths(), prefixes, notes=notes)
    files: dict[Path, Writer] = {}
    sides = split(train.labels, f'The images in {train.folder}')
    for phase, places in zip(('train', 'val'), sides, strict=True):
        ann_file = request.folder / f'{phase}.txt'
        files[ann_file] = lines_writer([f'{train.names[place]} {train.labels[place]}' for place in places])
        prefixes[phase] = {'data_prefix': repr(path_text(train.folder)), 'ann_file': repr(path_text(ann_file))}
    return Data(train.classes, train.paths(sides[0]), train.paths(sides[1]), prefixes, files, notes)


def images_in(folder: Path, extensions: Sequence[str]) -> Images:
    """Return the images of a folder's class folders.

    Raises:
        UserError: There are fewer than two class folders, or no images.
    """
    classes = subfolders(folder)
    if len(classes) < 2:
        has = f'one folder, {classes[0]}' if classes else 'no folders'
        raise UserError(f'{folder} has {has}: a classification needs a folder of images for each of its classes.')
    names, labels = [], []
    for label, name in enumerate(classes):
        images = files_with(folder / name, extensions)
        names += [f'{name}/{image}' for image in images]
        labels += [label] * len(images)
    if not names:
        raise UserError(f'{folder} has no images in its {len(classes)} folders ({", ".join(sorted(extensions))}).')
    return Images(folder, classes, names, labels)


def _body(request: DataRequest, start: Start, data: Data) -> str:
    """Return the model and the data as the config has them."""
    head_entries = {'num_classes': 'len(classes)', 'in_channels': 'coc_core.VARIANTS[arch].dims[-1]'}
    lines = [*start.comment, assigned('model', {'backbone': {'arch': 'arch', **start.backbone}, 'head': head_entries})]
    lines += pipelines('image_size')
    if data.files:
        lines.append(f'# {SHARE:.0%} of each class is held back, by lists: no file was moved.')
    lines += [loader(phase, dataset(phase, own), request.machine.workers) for phase, own in data.datasets.items()]
    if 'test' not in data.datasets:
        lines.append('test_dataloader = val_dataloader')
    return '\n'.join(lines) + '\n'
