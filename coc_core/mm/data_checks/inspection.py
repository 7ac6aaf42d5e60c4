"""The checks of one data set, and what a data set's config says of it."""

from __future__ import annotations

import os.path as osp
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.config import Config
from mmengine.fileio import list_from_file
from mmengine.registry import DATASETS

from coc_core.errors import UserError
from coc_core.mm.data_checks.images import read_pixels
from coc_core.mm.data_checks.problems import Problem
from coc_core.mm.loading import ImageLoader, image_loader
from coc_core.mm.requirements import quiet_imports


class Sample(NamedTuple):
    """What opening one sample told.

    Attributes:
        problems: What is wrong with it.
        labels: The classes in it, where only opening it tells them.
    """

    problems: list[Problem]
    labels: frozenset[int] = frozenset()


@dataclass
class Inspection:
    """The checks of one data set; what knows the data set fills it in.

    Attributes:
        name: Phase and place, for messages.
        training: Whether a model learns from it, not only is compared with it.
        alone: Whether it is all data of its phase, so that classes that it lacks are in no other.
        num_classes: How many classes the model has, where its config says so.
        problems: What is known without opening images.
        samples: Calls that open one sample each; they run in processes of their own.
        files: The images that it reads, or the folder whose images it reads all; empty where that is not known.
        contents: What tells its samples from others, and their names, where one file holds many.
        classes: The class names in the order of their labels, as the data's own files give them.
        unseen: Names of the classes that must be in the samples, by label, where only opening them tells.
        summary: The size of the data set in words.
    """

    name: str
    training: bool = True
    alone: bool = True
    num_classes: int | None = None
    problems: list[Problem] = field(default_factory=list)
    samples: list[Callable[[], Sample]] = field(default_factory=list)
    files: Sequence[str | Path] = ()
    contents: Mapping[str | bytes, str | Path] = field(default_factory=dict)
    classes: list[str] | None = None
    unseen: Mapping[int, str] = field(default_factory=dict)
    summary: str = ''

    def missing_classes(self, place: str, names: Sequence[str]) -> Iterator[Problem]:
        """Yield the problem of classes without any sample: nothing can be learned of them, or measured."""
        if names:
            what = 'cannot be learned' if self.training else 'is not measured'
            yield Problem(
                place, f'has no sample of {len(names)} of the classes ({shown(names)}): what has none {what}',
                'error' if self.training and self.alone else 'warning',
            )  # fmt: skip

    def opened(self, samples: Iterable[Sample]) -> Iterator[Problem]:
        """Yield the problems of opened samples, and at last those of all of them together."""
        seen: set[int] = set()
        for sample in samples:
            yield from sample.problems
            seen |= sample.labels
        yield from self.missing_classes(self.name, [name for label, name in self.unseen.items() if label not in seen])


def inspect_files(inspection: Inspection, scope: str, dataset: Mapping[str, Any]) -> None:
    """Add the checks of the images alone, of a data set whose annotations nobody here knows."""
    try:
        with quiet_imports(), DATASETS.switch_scope_and_registry(scope) as registry:
            built = registry.build(dict(dataset, pipeline=[], lazy_init=False))
        paths = [built.get_data_info(i).get('img_path') for i in range(len(built))]
    except Exception as error:
        inspection.problems.append(Problem(inspection.name, f'cannot be read ({type(error).__name__}: {error})'))
        return
    loader = image_loader(dataset.get('pipeline'), scope)
    inspection.files = [path for path in paths if path]
    inspection.samples.extend(partial(open_file, Path(path), loader) for path in inspection.files)
    inspection.summary = f'{len(built)} samples'


def open_file(path: Path, loader: ImageLoader) -> Sample:
    """Decode an image of which nothing else is known."""
    pixels = read_pixels(path, loader)
    return Sample([pixels] if isinstance(pixels, Problem) else [])


def transforms_of(pipeline: Any) -> Iterator[Mapping[str, Any]]:
    """Yield the transforms of a pipeline and those nested in them."""
    for step in pipeline if isinstance(pipeline, (list, tuple)) else []:
        if isinstance(step, Mapping):
            yield step
            yield from transforms_of(step.get('transforms'))
        else:
            yield from transforms_of(step)


def datasets_of(cfg: Config, phase: str) -> Iterator[Mapping[str, Any]]:
    """Yield the data sets of a phase, wrappers before what they wrap."""
    loader = cfg.get(f'{phase}_dataloader')
    yield from _unwrapped(loader.get('dataset') if isinstance(loader, Mapping) else None)


def _unwrapped(dataset: Any) -> Iterator[Mapping[str, Any]]:
    """Return a data set and the ones that it wraps."""
    if not isinstance(dataset, Mapping):
        return
    yield dataset
    yield from _unwrapped(dataset.get('dataset'))
    inner = dataset.get('datasets')
    for item in inner if isinstance(inner, (list, tuple)) else []:
        yield from _unwrapped(item)


def innermost_datasets(cfg: Config, phase: str) -> list[Mapping[str, Any]]:
    """Return the data sets of a phase that wrap no others: those that read files."""
    return [dataset for dataset in datasets_of(cfg, phase) if not {'dataset', 'datasets'} & set(dataset)]


def evaluators_of(cfg: Config, phase: str) -> list[Mapping[str, Any]]:
    """Return the evaluators of a phase."""
    given = cfg.get(f'{phase}_evaluator')
    listed = given if isinstance(given, (list, tuple)) else [given]
    return [evaluator for evaluator in listed if isinstance(evaluator, Mapping)]


def dataset_class(scope: str, dataset: Mapping[str, Any]) -> Any:
    """Return the class of a data set."""
    # A registry imports its package when it is first asked.
    with quiet_imports(), DATASETS.switch_scope_and_registry(scope) as registry:
        return registry.get(dataset['type']) if isinstance(dataset['type'], str) else dataset['type']


def class_names(classes: Any) -> list[str] | None:
    """Return class names as a list; metainfo may name a file with one per line.

    Raises:
        UserError: There is no such file.
    """
    if not isinstance(classes, str):
        return None if classes is None else list(classes)
    if not osp.isfile(classes):
        raise UserError(
            f'metainfo.classes={classes!r} is no file: name one that has a class in each line, or write a list, '
            f'[{classes!r}] for one class.'
        )
    return list(list_from_file(classes))


def path_below(dataset: Mapping[str, Any], path: str) -> Path:
    """Return a path in a data set's root."""
    return Path(osp.expanduser(osp.join(dataset.get('data_root') or '', path)))


def home_problems(dataset: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield the path of a data set that begins with ``~``, which mmengine, mmdet and mmseg take as it stands."""
    prefix = dataset.get('data_prefix')
    below = prefix.values() if isinstance(prefix, Mapping) else [prefix]
    for path in (dataset.get('data_root'), dataset.get('ann_file'), *below):
        if isinstance(path, str) and path.startswith('~'):
            yield Problem(path, f'is no path to this data set: write {osp.expanduser(path)}')


def shown(names: Sequence[Any], most: int = 5) -> str:
    """Return names as part of a sentence, and of many the first."""
    return ', '.join(map(str, names[:most])) + (', ...' if len(names) > most else '')


def is_remote(dataset: Mapping[str, Any]) -> bool:
    """Whether a data set's files are behind a storage client."""
    remote = dataset.get('backend_args') or dataset.get('file_client_args') or '://' in str(dataset.get('data_root'))
    return bool(remote)
