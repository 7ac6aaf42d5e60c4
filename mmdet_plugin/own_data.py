"""A config for images with a COCO annotation file, split by images where there is one file alone."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from glob import escape
from pathlib import Path
from typing import Any

from mmengine.config import Config

from coc_core.checkpoints.layouts import DETECTION
from coc_core.errors import UserError
from coc_core.mm.data_checks.coco_lists import listing_of, read
from coc_core.mm.data_checks.inspection import shown
from coc_core.mm.data_checks.problems import Problem
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
from coc_core.mm.own_data.folders import files_with, phase_of
from coc_core.mm.own_data.plan import DataRequest, Plan, Writer
from coc_core.mm.own_data.splits import SHARE, rarest, split
from coc_core.mm.own_data.starting import Start, start_of_images
from coc_core.variants import get_config

BASE = 'finetune_detection.py'
BUDGET = Budget(samples=8_000, epochs=(12, 50), from_scratch=3, batch=(8, 2), size=(1024, 512))
# FPN, and the heads of a thousand proposals.
_SURROUNDINGS = 2.5
# Images that are searched for; any of them may be missing.
_LOOKED_FOR = 5
_KIND = 'a COCO annotation file, or the folder of one or of several whose names say train, val and test'


@dataclass(frozen=True)
class CocoFile:
    """An annotation file and the folder of its images.

    Attributes:
        path: The file.
        content: Its three lists.
        images: The folder that its file names begin in.
    """

    path: Path
    content: Mapping[str, list[Any]]
    images: Path

    def classes(self) -> list[str]:
        """Return the names of the categories that have an object, in the file's order."""
        used = {entry.get('category_id') for entry in self.content['annotations'] if not entry.get('iscrowd')}
        return [str(category['name']) for category in self.content['categories'] if category.get('id') in used]

    def has_masks(self) -> bool:
        """Whether every object has a segmentation."""
        return all(entry.get('segmentation') for entry in self.content['annotations'])

    def part(self, places: Collection[int]) -> dict[str, Any]:
        """Return what an annotation file of some of the images holds."""
        images = [self.content['images'][place] for place in places]
        kept = {image['id'] for image in images}
        annotations = [entry for entry in self.content['annotations'] if entry['image_id'] in kept]
        return {'images': images, 'annotations': annotations, 'categories': self.content['categories']}


@dataclass(frozen=True)
class Data:
    """What the config's data sets are.

    Attributes:
        train: The training file; before a split, the only one.
        ann_files: The annotation file of each phase.
        folders: The image folder of each phase.
        counts: Images of each phase.
        example: An image for validation.
        files: Annotation files to be written.
        unlearned: Categories that have objects in other files than that for training alone.
    """

    train: CocoFile
    ann_files: dict[str, Path]
    folders: dict[str, Path]
    counts: dict[str, int]
    example: Path
    files: Mapping[Path, Writer] = field(default_factory=dict)
    unlearned: Sequence[str] = ()


def plan(request: DataRequest) -> Plan:
    """Plan a config for COCO files.

    Raises:
        UserError: There is no such file or there are too many, its images are nowhere, or an argument does not fit.
    """
    request.check_data_is(_KIND, folder=False)
    if request.classes is not None:
        raise UserError('--classes: a detection takes its classes from the categories of the annotation file.')
    base = Config.fromfile(str(base_path(BASE)), import_custom_modules=False)
    data = arranged(request)
    arch = request.arch or 'coc_small'
    start = start_of_images(request.checkpoint, arch, DETECTION)
    sides = [max(image['width'], image['height']) for image in data.train.content['images']]
    size = BUDGET.fitting_size(sides, request.machine)
    memory = training_bytes(get_config(arch), size, _SURROUNDINGS)
    batch = BUDGET.fitting_batch(data.counts['train'], memory, request.machine)
    epochs = BUDGET.fitting_epochs(data.counts['train'], pretrained=start.pretrained)
    classes, masks = data.train.classes(), data.train.has_masks()
    found = f'{counted(classes)}, {data.counts["train"]} images for training and {data.counts["val"]} for validation'
    variables = {
        'arch': (arch, ''),
        'classes': (classes, "the categories' names, in the file's order"),
        'image_size': (size, 'pixels of the longer side'),
        'batch_size': (batch, 'fewer where memory runs out: the learning rate follows'),
        'epochs': (epochs, 'the schedule follows'),
    }
    summary = f'{arch} from {start.words} on {request.data}: {found}.'
    text = head(request, BASE, summary, variables) + _body(request, start, data, masks)
    notes = list(_notes(data, classes, masks=masks))
    return Plan(text + training(base, start, decayed=True), summary, epochs, data.example, data.files, notes)


def arranged(request: DataRequest) -> Data:
    """Find the annotation file of each phase, or split the only one by images.

    Raises:
        UserError: There are none or too many, or the images are nowhere.
    """
    found = annotation_files(request.data)
    folder = request.data if request.data.is_dir() else request.data.parent
    files = {phase: _coco_file(path, content, folder) for phase, (path, content) in found.items()}
    train = files['train']
    paths = {phase: file.path for phase, file in files.items()}
    images = {phase: file.images for phase, file in files.items()}
    counts = {phase: len(file.content['images']) for phase, file in files.items()}
    if 'val' in files:
        example = files['val'].images / files['val'].content['images'][0]['file_name']
        elsewhere = [name for file in files.values() for name in file.classes()]
        unlearned = [name for name in dict.fromkeys(elsewhere) if name not in train.classes()]
        return Data(train, paths, images, counts, example, unlearned=unlearned)
    writers: dict[Path, Writer] = {}
    sides = split_by_images(train)
    for phase, places in zip(('train', 'val'), sides, strict=True):
        paths[phase], images[phase], counts[phase] = request.folder / f'{phase}.json', train.images, len(places)
        writers[paths[phase]] = partial(_write_json, train.part(places))
    return Data(train, paths, images, counts, train.images / train.content['images'][sides[1][0]]['file_name'], writers)


def annotation_files(data: Path) -> dict[str, tuple[Path, Mapping[str, list[Any]]]]:
    """Return the annotation files by their phases, read; a file that is alone is for training.

    Raises:
        UserError: A file is no annotation file, there are none, or several for one phase.
    """
    if data.is_file():
        content = read(data)
        if isinstance(content, Problem):
            raise UserError(str(content))
        found = {'train': (data, content)}
        # A pair is taken together; what is called by no phase is alone.
        if phase_of(data.stem) == 'train':
            others = [data.parent / name for name in files_with(data.parent, {'.json'})]
            others = [path for path in others if phase_of(path.stem) in ('val', 'test')]
            # Beside other files, such as person_keypoints_val2017.json, that which is called alike is meant.
            alike = [path for path in others if _without_phase(path.stem) == _without_phase(data.stem)]
            found |= _by_phase(alike or others, data.parent)
        return found
    paths = [data / name for name in files_with(data, {'.json'})]
    found = _by_phase(paths, data)
    if not found:
        raise UserError(f'--data {data} has no COCO annotation file among its {len(paths)} .json files: name {_KIND}.')
    if 'train' not in found:
        raise UserError(f'--data {data} has {found["val" if "val" in found else "test"][0]} but no file for training.')
    return found


def _by_phase(paths: Sequence[Path], root: Path) -> dict[str, tuple[Path, Mapping[str, list[Any]]]]:
    """Return those files that are in COCO format by phase, one that says none for training.

    Raises:
        UserError: There are two of one phase.
    """
    found: dict[str, tuple[Path, Mapping[str, list[Any]]]] = {}
    for path in paths:
        content = read(path)
        if isinstance(content, Problem):
            continue
        phase = _said_phase(path, root) or 'train'
        if phase in found:
            raise UserError(f'{found[phase][0]} and {path} are both for {phase}: name one of them with --data.')
        found[phase] = (path, content)
    return found


def _said_phase(path: Path, root: Path) -> str | None:
    """Return the phase that a file is for: its own name says more than the folders that it lies in."""
    return phase_of(path.stem) or phase_of(' '.join(path.relative_to(root).parts[:-1]))


def _without_phase(name: str) -> str:
    """Return a name without the word in it that says its phase."""
    return re.sub('[a-z]+', lambda word: '' if phase_of(word[0]) else word[0], name.casefold())


def _coco_file(path: Path, content: Mapping[str, list[Any]], root: Path) -> CocoFile:
    """Return an annotation file with the folder of its images: where the first of them are found.

    A folder of another phase, as its name says, comes last: its files may be called alike.

    Raises:
        UserError: An entry is not whole, or the images are nowhere.
    """
    for key, needed in (
        ('images', ('id', 'file_name', 'width', 'height')), ('annotations', ('image_id',)), ('categories', ('name',))
    ):  # fmt: skip
        if not content[key]:
            raise UserError(f'{path} has no {key}.')
        for entry in content[key]:
            lacking = [name for name in needed if not isinstance(entry, dict) or name not in entry]
            if lacking:
                raise UserError(f'{path} has one of its {key} without {" and ".join(lacking)}: {str(entry)[:100]}.')
    names = [str(image['file_name']) for image in content['images']]
    above = path.parent.parent if path.parent.name.startswith('annotation') else path.parent
    problems: list[Problem] = []
    listing_of(content, str(path), problems)
    for problem in problems:
        raise UserError(str(problem))
    for place in dict.fromkeys((path.parent, root, above)):
        folders = {folder for name in names[:_LOOKED_FOR] for folder in _folders_of(name, place)}
        if folders:
            # Beside its images an annotation file says which are meant.
            own = {path.parent} & folders if all((path.parent / name).is_file() for name in names) else set()
            return CocoFile(path, content, _best(own or folders, place, names, path, root))
    raise UserError(f'The images of {path} (the first is {names[0]}) are nowhere in {above}: move them there.')


def _folders_of(name: str, place: Path) -> Iterator[Path]:
    """Yield the folders below a place that a file name of an annotation file leads to a file from."""
    for hit in place.rglob(escape(Path(name).name)):
        if hit.as_posix().endswith(f'/{name}'):
            yield Path(hit.as_posix().removesuffix(f'/{name}'))


def _best(folders: Collection[Path], place: Path, names: Sequence[str], path: Path, root: Path) -> Path:
    """Return that one of some folders below a place that has the images of an annotation file.

    Raises:
        UserError: Several have, equally well.
    """
    suits = partial(_suits, place, names, _said_phase(path, root))
    most = max(map(suits, folders))
    best = {folder.resolve(): folder for folder in sorted(folders, reverse=True) if suits(folder) == most}
    if len(best) == 1:
        return next(iter(best.values()))
    first, second = sorted(best.values())[:2]
    raise UserError(
        f'Images of the names in {path} (the first is {names[0]}) are in {first} and in {second}: move the file into '
        'the folder of its images.'
    )


def _suits(place: Path, names: Sequence[str], phase: str | None, folder: Path) -> tuple[bool, int, bool]:
    """Return what is largest for the folder below a place that has the images of these names and this phase."""
    own = phase if phase is None else phase_of(' '.join(folder.relative_to(place).parts))
    return own in (phase, None), sum((folder / name).is_file() for name in names), own == phase


def split_by_images(file: CocoFile) -> tuple[list[int], list[int]]:
    """Return the places of the training and of the validation images, each class on both sides."""
    of_image: defaultdict[Any, set[Any]] = defaultdict(set)
    for entry in file.content['annotations']:
        of_image[entry['image_id']].add(entry.get('category_id'))
    labels = rarest([of_image[image['id']] for image in file.content['images']])
    return split(labels, f'The images of {file.path}')


def _write_json(content: Mapping[str, Any], path: Path) -> None:
    path.write_text(json.dumps(content), encoding='utf-8')


def _notes(data: Data, classes: Sequence[str], *, masks: bool) -> list[str]:
    names = [str(category['name']) for category in data.train.content['categories']]
    unused = [name for name in names if name not in classes and name not in data.unlearned]
    notes = []
    if unused:
        notes.append(f'categories without an object are left out: {shown(unused, 10)}')
    if data.unlearned:
        notes.append(
            f'{data.train.path} has no object of {shown(data.unlearned, 10)}, which validation or test have: what has '
            'none is never learned and not measured'
        )
    if not masks:
        notes.append('not every object has a segmentation, so boxes alone are learned, without masks')
    return notes


def _body(request: DataRequest, start: Start, data: Data, masks: bool) -> str:
    """Return the model and the data as the config has them."""
    count = {'num_classes': 'len(classes)'}
    boxes_alone = {'mask_head': 'None', 'mask_roi_extractor': 'None'}
    model = {
        'backbone': {'arch': 'arch', **start.backbone},
        'neck': {'in_channels': 'list(coc_core.VARIANTS[arch].dims)'},
        'roi_head': {'bbox_head': count, **({'mask_head': count} if masks else boxes_alone)},
    }
    lines = [*start.comment, assigned('model', model), *pipelines('image_size')]
    if not masks:
        lines.append('# Boxes alone: not every object has a segmentation.')
        lines.append("train_pipeline[1] = test_pipeline[2] = dict(type='LoadAnnotations', with_bbox=True)")
    if data.files:
        lines.append(f'# {SHARE:.0%} of the images are held back, in files of their own: no file was moved.')
    for phase, path in data.ann_files.items():
        prefix = {'img': repr(f'{path_text(data.folders[phase])}/')}
        own = dataset(phase, {'ann_file': repr(path_text(path)), 'data_prefix': prefix})
        lines.append(loader(phase, own, request.machine.workers, whole_batches=False))
        if phase != 'train':
            metric = {} if masks else {'metric': "['bbox']"}
            lines.append(assigned(f'{phase}_evaluator', {'ann_file': repr(path_text(path)), **metric}))
    if 'test' not in data.ann_files:
        lines += ['test_dataloader = val_dataloader', 'test_evaluator = val_evaluator']
    return '\n'.join(lines) + '\n'
