"""The checks of one data set: what its annotations say about themselves, and what its files hold."""

from __future__ import annotations

import inspect
import os.path as osp
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import DATASETS

from coc_core.mm.data_checks import coco, label_maps
from coc_core.mm.data_checks.images import Problem, read_pixels


@dataclass
class Inspection:
    """The checks of one data set.

    Attributes:
        name: Phase and place, for messages.
        problems: What is known without opening images.
        samples: Calls that open one sample each and return its problems.
        summary: The size of the data set in words.
    """

    name: str
    problems: list[Problem] = field(default_factory=list)
    samples: list[Callable[[], list[Problem]]] = field(default_factory=list)
    summary: str = ''


def inspections(cfg: Config, phases: Sequence[str], *, files: bool) -> Iterator[Inspection]:
    """Yield the checks of each data set of these phases; one that serves two phases comes once.

    Args:
        cfg: The config.
        phases: Out of train, val, test.
        files: Whether the samples' files will be opened, which a data set without annotations is all about.
    """
    seen: list[Mapping[str, Any]] = []
    for phase in phases:
        for dataset in datasets_of(cfg, phase):
            if dataset not in seen and not is_remote(dataset) and not {'dataset', 'datasets'} & set(dataset):
                seen.append(dataset)
                yield _inspect(cfg.get('default_scope', 'mmengine'), phase, dataset, files)


def _inspect(scope: str, phase: str, dataset: Mapping[str, Any], files: bool) -> Inspection:
    inspection = Inspection(f'{phase} data in {dataset.get("data_root") or dataset.get("ann_file") or "."}')
    kind = _dataset_class(scope, dataset)
    if hasattr(kind, 'inspect'):
        checked: Inspection = kind.inspect(inspection.name, dataset)
        return checked
    prefix = dataset.get('data_prefix')
    if scope == 'mmdet' and str(dataset.get('ann_file', '')).endswith('.json'):
        _inspect_coco(inspection, scope, dataset)
    elif isinstance(prefix, Mapping) and prefix.get('seg_map_path'):
        _inspect_label_maps(inspection, scope, dataset)
    elif files:
        _inspect_files(inspection, scope, dataset)
    return inspection


def _inspect_coco(inspection: Inspection, scope: str, dataset: Mapping[str, Any]) -> None:
    ann_file = _below(dataset, dataset['ann_file'])
    folder = _below(dataset, (dataset.get('data_prefix') or {}).get('img', ''))
    content = coco.read(ann_file)
    if isinstance(content, Problem):
        inspection.problems.append(content)
        return
    masks = any(step.get('with_mask') for step in _steps(dataset.get('pipeline')))
    inspection.problems.extend(
        coco.annotation_problems(content, ann_file, folder, _classes(scope, dataset) or [], masks=masks)
    )
    named = [image for image in content['images'] if 'file_name' in image and (folder / image['file_name']).is_file()]
    inspection.samples.extend(partial(coco.image_problems, image, folder) for image in named)
    inspection.summary = (
        f'{len(content["images"])} images, {len(content["annotations"])} annotations, '
        f'{len(content["categories"])} categories, {coco.empty_images(content)} images without annotation'
    )


def _inspect_label_maps(inspection: Inspection, scope: str, dataset: Mapping[str, Any]) -> None:
    kind = _dataset_class(scope, dataset)
    arguments = _defaults(kind) | dict(dataset)
    prefix = dataset['data_prefix']
    folders = label_maps.Folders(
        _below(dataset, prefix.get('img_path', '')),
        _below(dataset, prefix['seg_map_path']),
        arguments['img_suffix'],
        arguments['seg_map_suffix'],
    )
    own = getattr(kind, 'METAINFO', {}).get('classes')
    wanted = class_names((dataset.get('metainfo') or {}).get('classes'))
    if own and wanted and not set(wanted) <= set(own):
        other = next(name for name in wanted if name not in own)
        what = f"knows no class {other!r} (dataset.metainfo.classes): set dataset.type='BaseSegDataset' for your own"
        inspection.problems.append(Problem(kind.__name__, what))
    ann_file = _below(dataset, dataset['ann_file']) if dataset.get('ann_file') else None
    found = label_maps.pairs(folders, ann_file)
    inspection.problems.extend(label_maps.pairing_problems(folders, found))
    rule = label_rule(kind, arguments)
    if rule is not None:
        complete = [(image, label_map) for image, label_map in found if image.is_file() and label_map.is_file()]
        inspection.samples.extend(partial(label_maps.map_problems, *pair, rule) for pair in complete)
    inspection.summary = f'{len(found)} images, {rule.num_labels if rule else "no"} classes'


def _inspect_files(inspection: Inspection, scope: str, dataset: Mapping[str, Any]) -> None:
    try:
        with DATASETS.switch_scope_and_registry(scope) as registry:
            built = registry.build(dict(dataset, pipeline=[], lazy_init=False))
        paths = [built.get_data_info(i).get('img_path') for i in range(len(built))]
    except Exception as error:
        inspection.problems.append(Problem(inspection.name, f'cannot be read ({type(error).__name__}: {error})'))
        return
    inspection.samples.extend(partial(_file_problems, Path(path)) for path in paths if path)
    inspection.summary = f'{len(built)} samples'


def _file_problems(path: Path) -> list[Problem]:
    pixels = read_pixels(path)
    return [pixels] if isinstance(pixels, Problem) else []


def label_rule(kind: Any, arguments: Mapping[str, Any]) -> label_maps.LabelRule | None:
    """Return which labels the maps of a segmentation data set may hold; None where it names no classes.

    Args:
        kind: The data set's class, whose own classes the maps are drawn with where it has any.
        arguments: What it is built with, or its attributes.
    """
    own = getattr(kind, 'METAINFO', {}).get('classes')
    classes = own or class_names((arguments.get('metainfo') or {}).get('classes'))
    if classes is None:
        return None
    return label_maps.LabelRule(
        len(classes), bool(arguments.get('reduce_zero_label')), arguments.get('ignore_index', 255)
    )


def datasets_of(cfg: Config, phase: str) -> Iterator[Mapping[str, Any]]:
    """Yield the data sets of a phase, wrappers before what they wrap."""
    loader = cfg.get(f'{phase}_dataloader')
    yield from _unwrapped(loader.get('dataset') if isinstance(loader, Mapping) else None)


def _unwrapped(dataset: Any) -> Iterator[Mapping[str, Any]]:
    """A data set and the ones that it wraps."""
    if not isinstance(dataset, Mapping):
        return
    yield dataset
    yield from _unwrapped(dataset.get('dataset'))
    inner = dataset.get('datasets')
    for item in inner if isinstance(inner, (list, tuple)) else []:
        yield from _unwrapped(item)


def _steps(pipeline: Any) -> Iterator[Mapping[str, Any]]:
    """The transforms of a pipeline and those nested in them."""
    for step in pipeline if isinstance(pipeline, (list, tuple)) else []:
        if isinstance(step, Mapping):
            yield step
            yield from _steps(step.get('transforms'))
        else:
            yield from _steps(step)


def _dataset_class(scope: str, dataset: Mapping[str, Any]) -> Any:
    with DATASETS.switch_scope_and_registry(scope) as registry:
        return registry.get(dataset['type']) if isinstance(dataset['type'], str) else dataset['type']


def _defaults(kind: Any) -> dict[str, Any]:
    """The arguments that a segmentation data set has where a config is silent."""
    found: dict[str, Any] = {}
    for level in reversed(inspect.getmro(kind)[:-1]):
        for name, parameter in inspect.signature(level).parameters.items():
            if parameter.default is not parameter.empty:
                found[name] = parameter.default
    return found


def _classes(scope: str, dataset: Mapping[str, Any]) -> list[str] | None:
    named = class_names((dataset.get('metainfo') or {}).get('classes'))
    return named or class_names(getattr(_dataset_class(scope, dataset), 'METAINFO', {}).get('classes'))


def class_names(classes: Any) -> list[str] | None:
    """Class names as a list; metainfo may name a file with one per line."""
    if isinstance(classes, str):
        return Path(classes).read_text().split('\n') if osp.isfile(classes) else [classes]
    return None if classes is None else list(classes)


def _below(dataset: Mapping[str, Any], path: str) -> Path:
    return Path(osp.expanduser(osp.join(dataset.get('data_root') or '', path)))


def is_remote(dataset: Mapping[str, Any]) -> bool:
    """Whether a data set's files are behind a storage client."""
    return bool(dataset.get('backend_args') or dataset.get('file_client_args'))
