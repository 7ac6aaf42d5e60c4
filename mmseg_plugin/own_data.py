"""A config for images with label maps, split where there are no training and validation folders."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from mmengine.config import Config

from coc_core.checkpoints.layouts import SEGMENTATION
from coc_core.errors import UserError
from coc_core.mm.data_checks.inspection import shown
from coc_core.mm.data_checks.label_maps import channel_difference, label_values
from coc_core.mm.loading import LabelMapLoader
from coc_core.mm.own_data.class_lists import names_in
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
from coc_core.mm.own_data.fitting import Budget, training_bytes
from coc_core.mm.own_data.folders import PHASES, images_below, phase_folders, phase_of, sizes_of, subfolders
from coc_core.mm.own_data.plan import DataRequest, Plan, Writer, lines_writer
from coc_core.mm.own_data.splits import SHARE, rarest, split
from coc_core.mm.own_data.starting import Start, start_of_images
from coc_core.variants import get_config

BASE = 'finetune_segmentation.py'
# Batch normalization of the head needs two.
BUDGET = Budget(samples=16_000, epochs=(20, 100), from_scratch=3, batch=(16, 4), size=(512, 256), smallest_batch=2)
# Neck and head, whose maps are large.
_SURROUNDINGS = 2.0
IMAGE_FOLDERS = ('images', 'image', 'imgs', 'img', 'img_dir', 'jpegimages', 'photos', 'pictures')
MAP_FOLDERS = (
    'maps', 'label_maps', 'masks', 'mask', 'labels', 'label', 'annotations', 'annotation', 'ann_dir',
    'segmentationclass',
)  # fmt: skip
CLASS_LISTS = ('classes.txt', 'labels.txt', 'class_names.txt', 'names.txt')
NO_LABEL = 255
_KIND = 'a folder with the folders images and maps, each with or without train and val in it, and classes.txt'


@dataclass(frozen=True)
class Pairs:
    """Images with their label maps.

    Attributes:
        images: The folder of the images.
        maps: The folder of the label maps.
        names: Paths within the folders without their endings.
        endings: Those of each pair's image and map.
        alone: Images that have no map.
    """

    images: Path
    maps: Path
    names: list[str]
    endings: list[tuple[str, str]]
    alone: list[str]

    def image(self, place: int) -> Path:
        """Return the path of an image."""
        return self.images / f'{self.names[place]}{self.endings[place][0]}'

    def label_map(self, place: int) -> Path:
        """Return the path of a label map."""
        return self.maps / f'{self.names[place]}{self.endings[place][1]}'


@dataclass(frozen=True)
class Phase:
    """The pairs of a phase, by places."""

    pairs: Pairs
    places: Sequence[int]


@dataclass(frozen=True)
class Labels:
    """What the values of label maps mean.

    Attributes:
        classes: The names.
        zero_is_none: Whether 0 is no class, and classes begin at 1.
    """

    classes: list[str]
    zero_is_none: bool


def plan(request: DataRequest) -> Plan:
    """Plan a config for images with label maps.

    Raises:
        UserError: The folder is not laid out so, the classes are unknown, or an argument does not fit.
    """
    request.check_data_is(_KIND, folder=True)
    base = Config.fromfile(str(base_path(BASE)), import_custom_modules=False)
    found = {phase: paired(*folders) for phase, folders in folders_of(request.data).items()}
    values = values_of(found['train'])
    labels = labels_of(request, {value for seen in values for value in seen})
    check_numbering(found, values, labels)
    phases = phases_of(found, values)
    arch = request.arch or 'coc_small'
    start = start_of_images(request.checkpoint, arch, SEGMENTATION)
    count = len(phases['train'].places)
    sides = [min(size) for size in sizes_of([found['train'].image(place) for place in phases['train'].places])]
    size = BUDGET.fitting_size(sides, request.machine)
    memory = training_bytes(get_config(arch), size, _SURROUNDINGS)
    epochs = BUDGET.fitting_epochs(count, pretrained=start.pretrained)
    variables = {
        'arch': (arch, ''),
        'classes': (labels.classes, f'label {int(labels.zero_is_none)} is the first; {NO_LABEL} counts for nothing'),
        'image_size': (size, 'pixels of what is cut out for training, and of the shorter side of an image'),
        'batch_size': (BUDGET.fitting_batch(count, memory, request.machine), 'the learning rate follows'),
        'epochs': (epochs, 'the schedule follows'),
    }
    held_out = phases['val']
    amounts = f'{count} images for training and {len(held_out.places)} for validation'
    summary = f'{arch} from {start.words} on {request.data}: {counted(labels.classes)}, {amounts}.'
    files: dict[Path, Writer] = {}
    body = _body(request, start, labels, phases, files)
    text = head(request, BASE, summary, variables) + body + training(base, start, decayed=True)
    return Plan(text, summary, epochs, held_out.pairs.image(held_out.places[0]), files, _notes(found, labels))


def phases_of(found: Mapping[str, Pairs], values: Sequence[Sequence[float]]) -> dict[str, Phase]:
    """Return the pairs of each phase; those for training are split where there are none for validation.

    Args:
        found: The pairs of the phases that are there.
        values: The values in each label map for training.
    """
    phases = {phase: Phase(pairs, range(len(pairs.names))) for phase, pairs in found.items()}
    if 'val' not in found:
        classes = [[value for value in seen if value != NO_LABEL] for seen in values]
        parts = split(rarest(classes), f'The images in {found["train"].images}')
        phases |= {phase: Phase(found['train'], part) for phase, part in zip(('train', 'val'), parts, strict=True)}
    return phases


def _notes(found: Mapping[str, Pairs], labels: Labels) -> list[str]:
    notes = [
        f'{len(pairs.alone)} images in {pairs.images} have no label map and are left out (first {pairs.alone[0]})'
        for pairs in found.values() if pairs.alone
    ]  # fmt: skip
    if labels.zero_is_none:
        notes.append(f'the labels go to {len(labels.classes)}, the number of classes, so that 0 counts for nothing')
    return notes


def folders_of(data: Path) -> dict[str, tuple[Path, Path]]:
    """Return the folder of images and that of label maps of each phase; one pair alone is for training.

    Raises:
        UserError: There is none for training, or images with label maps would be left out.
    """
    inner = {phase: _pair_in(folder) for phase, folder in phase_folders(data).items()}
    pairs = {phase: pair for phase, pair in inner.items() if pair is not None}
    outer = _pair_in(data)
    if pairs and 'val' in inner and inner['val'] is None:
        folder = phase_folders(data)['val']
        raise UserError(f'{folder} has no images and label maps, but {shown(subfolders(folder), 10)}: name {_KIND}.')
    if outer is not None and not pairs:
        pairs = _phases_in(*outer) or {'train': outer}
    if 'train' not in pairs:
        has = f'It has {shown(subfolders(data), 10)}.' if subfolders(data) else 'It has no folders.'
        raise UserError(f'--data {data} has no folders of images and label maps for training: name {_KIND}. {has}')
    return pairs


def _phases_in(images: Path, maps: Path) -> dict[str, tuple[Path, Path]]:
    """Return the folders of phases within a folder of images and one of label maps.

    Raises:
        UserError: Two have one phase, there are no maps for validation, or pairs lie outside.
    """
    found: list[dict[str, Path]] = []
    for folder in (images, maps):
        phases: dict[str, Path] = {}
        for name in subfolders(folder):
            phase = phase_of(name)
            if phase in phases:
                raise UserError(f'{folder} has {phases[phase].name} and {name}, both for {phase}: keep one.')
            phases |= {} if phase is None else {phase: folder / name}
        found.append(phases)
    shared = {phase: (found[0][phase], found[1][phase]) for phase in found[0] if phase in found[1]}
    if shared and 'val' in found[0] and 'val' not in shared:
        raise UserError(f'{found[0]["val"]} has no folder of label maps in {maps}: add it, or move those images away.')
    inside = {folder.relative_to(images).as_posix() for folder, _ in shared.values()}
    paired_names = _endings(images).keys() & _endings(maps).keys() if shared else set()
    outside = sorted(name for name in paired_names if name.partition('/')[0] not in inside)
    if outside:
        raise UserError(
            f'{images} has images with label maps outside of {shown(sorted(inside))}, such as {outside[0]}: name all '
            'of its folders by train, val and test, or none.'
        )
    return shared


def _pair_in(folder: Path) -> tuple[Path, Path] | None:
    images, maps = (_one_of(known, folder) for known in (IMAGE_FOLDERS, MAP_FOLDERS))
    return None if images is None or maps is None else (images, maps)


def _one_of(known: Sequence[str], folder: Path) -> Path | None:
    """Return the folder in a folder that has one of the known names, and images in it where there are several.

    Raises:
        UserError: Several have.
    """
    names = {name.casefold(): folder / name for name in subfolders(folder)}
    found = [names[name] for name in known if name in names]
    filled = [path for path in found if images_below(path)] if len(found) > 1 else found
    if len(filled) > 1:
        raise UserError(f'{folder} has {filled[0].name} and {filled[1].name}, which can both be meant: keep one.')
    return next(iter(filled or found), None)


def paired(images: Path, maps: Path) -> Pairs:
    """Return the images of a folder that have a label map of the same name, whatever the endings.

    Raises:
        UserError: None has.
    """
    map_endings = _endings(maps)
    names, endings, alone = [], [], []
    for name, ending in _endings(images).items():
        if name in map_endings:
            names.append(name)
            endings.append((ending, map_endings[name]))
        else:
            alone.append(f'{name}{ending}')
    if not names:
        raise UserError(
            f'No image in {images} has a label map in {maps}: a map has the name of its image, without the ending '
            f'(there are {shown(alone, 3) or "no images"} and {shown(list(map_endings), 3) or "no maps"}).'
        )
    return Pairs(images, maps, names, endings, alone)


def _endings(folder: Path) -> dict[str, str]:
    """Return the ending of each image by its path without it.

    Raises:
        UserError: Two images differ in their endings alone.
    """
    found: dict[str, str] = {}
    for path in map(PurePosixPath, images_below(folder)):
        name = str(path.with_suffix(''))
        if name in found:
            raise UserError(f'{folder} has {name}{found[name]} and {path}: images need names of their own.')
        found[name] = path.suffix
    return found


def values_of(pairs: Pairs) -> list[list[float]]:
    """Return the values in each label map.

    Raises:
        UserError: A map cannot be read, or is none.
    """
    with ThreadPoolExecutor() as pool:
        return list(pool.map(_values, map(pairs.label_map, range(len(pairs.names)))))


def _values(path: Path) -> list[float]:
    try:
        labels = LabelMapLoader()(path)
    except Exception as error:
        raise UserError(f'The label map {path} cannot be read: {error}.') from error
    if labels.ndim != 2:
        raise UserError(f'The label map {path} {channel_difference(labels.shape)}.')
    return label_values(labels)


def labels_of(request: DataRequest, values: set[float]) -> Labels:
    """Return the classes that maps with these values hold.

    Raises:
        UserError: Nobody names them, or the names do not fit the values.
    """
    found = [request.data / name for name in CLASS_LISTS if (request.data / name).is_file()]
    classes = list(request.classes) if request.classes is not None else names_in(found[0]) if found else None
    numbers = sorted(value for value in values if value != NO_LABEL)
    have = f'The label maps of {request.data} hold {shown([*numbers, *([NO_LABEL] if NO_LABEL in values else [])], 12)}'
    if numbers in ([], [0]):
        raise UserError(
            f'{have}, where {NO_LABEL} counts for nothing: there are not two classes. Number classes 0, 1, 2, ...'
        )
    if classes is None:
        raise UserError(
            f'{have}: name the classes in this order with --classes, or in {request.data / CLASS_LISTS[0]}, one a line.'
        )
    # Maps that begin at 1 leave 0 to what has no class.
    zero_is_none = numbers[-1] == len(classes)
    if numbers[-1] > len(classes) or numbers[0] < 0:
        raise UserError(
            f'{have}, but there are {len(classes)} classes ({shown(classes, 10)}): name one for each label.'
        )
    return Labels(classes, zero_is_none)


def check_numbering(found: Mapping[str, Pairs], values: Sequence[Sequence[float]], labels: Labels) -> None:
    """Check that maps of other phases do not begin at 0 where those for training begin at 1 and never hold a 0.

    Args:
        found: The pairs of the phases that are there.
        values: The values in each label map for training.
        labels: What they mean.

    Raises:
        UserError: Some do: either 0 is no class there, or all their labels are one less.
    """
    if not labels.zero_is_none or any(0 in seen for seen in values):
        return
    for pairs in (pairs for phase, pairs in found.items() if phase != 'train'):
        place = next((place for place, seen in enumerate(values_of(pairs)) if 0 in seen), None)
        if place is not None:
            raise UserError(
                f'The label maps in {found["train"].maps} begin at 1, but {pairs.label_map(place)} holds 0: number '
                f'both alike, with {NO_LABEL} where there is no label.'
            )


def _body(
    request: DataRequest, start: Start, labels: Labels, phases: Mapping[str, Phase], files: dict[Path, Writer]
) -> str:
    """Return the model and the data as the config has them; add the lists that it names."""
    model: Entries = {
        'data_preprocessor': 'data_preprocessor',
        'backbone': {'arch': 'arch', **start.backbone},
        'neck': {'in_channels': 'list(coc_core.VARIANTS[arch].dims)'},
        'decode_head': {'num_classes': 'len(classes)'},
    }
    lines = ['data_preprocessor = dict(size=(image_size, image_size))', *start.comment, assigned('model', model)]
    lines += pipelines('image_size')
    if phases['val'].pairs is phases['train'].pairs:
        lines.append(f'# {SHARE:.0%} of the images are held back, by lists: no file was moved.')
    shared = {'reduce_zero_label': str(labels.zero_is_none)}
    for phase in sorted(phases, key=list(PHASES).index):
        entries = _dataset(request, phase, phases[phase], dataset(phase, shared), files)
        lines.append(loader(phase, entries, request.machine.workers, whole_batches=False))
    if 'test' not in phases:
        lines.append('test_dataloader = val_dataloader')
    return '\n'.join(lines) + '\n'


def _dataset(request: DataRequest, phase: str, content: Phase, shared: Entries, files: dict[Path, Writer]) -> Entries:
    """Return the entries of a data set, one for each pair of endings where there are several; add its lists."""
    names: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for place in content.places:
        names[content.pairs.endings[place]].append(content.pairs.names[place])
    prefix = {
        'img_path': repr(path_text(content.pairs.images)),
        'seg_map_path': repr(path_text(content.pairs.maps)),
    }
    parts: list[Entries] = []
    for number, (endings, lines) in enumerate(sorted(names.items()), 1):
        ann_file = request.folder / (f'{phase}.txt' if len(names) == 1 else f'{phase}_{number}.txt')
        files[ann_file] = lines_writer(lines)
        own = {
            'img_suffix': repr(endings[0]),
            'seg_map_suffix': repr(endings[1]),
            'ann_file': repr(path_text(ann_file)),
        }
        parts.append({'data_prefix': prefix, **own, **shared})
    if len(parts) == 1:
        return parts[0]
    # mmseg's data sets know one ending of images each.
    joined = [{'type': repr('BaseSegDataset'), **part} for part in parts]
    return {'_delete_': 'True', 'type': repr('ConcatDataset'), 'datasets': joined}
