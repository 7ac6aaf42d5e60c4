"""The checks of one data set, and what a data set's config says of it."""

from __future__ import annotations

import os.path as osp
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from mmengine.registry import DATASETS

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


def inspect_files(name: str, scope: str, dataset: Mapping[str, Any]) -> Inspection:
    """Return the checks of the images alone, of a data set whose annotations nobody here knows."""
    inspection = Inspection(name)
    try:
        with DATASETS.switch_scope_and_registry(scope) as registry:
            built = registry.build(dict(dataset, pipeline=[], lazy_init=False))
        paths = [built.get_data_info(i).get('img_path') for i in range(len(built))]
    except Exception as error:
        inspection.problems.append(Problem(name, f'cannot be read ({type(error).__name__}: {error})'))
        return inspection
    inspection.samples.extend(partial(_file_problems, Path(path)) for path in paths if path)
    inspection.summary = f'{len(built)} samples'
    return inspection


def _file_problems(path: Path) -> list[Problem]:
    pixels = read_pixels(path)
    return [pixels] if isinstance(pixels, Problem) else []


def transforms_of(pipeline: Any) -> Iterator[Mapping[str, Any]]:
    """Yield the transforms of a pipeline and those nested in them."""
    for step in pipeline if isinstance(pipeline, (list, tuple)) else []:
        if isinstance(step, Mapping):
            yield step
            yield from transforms_of(step.get('transforms'))
        else:
            yield from transforms_of(step)


def dataset_class(scope: str, dataset: Mapping[str, Any]) -> Any:
    """Return the class of a data set."""
    with DATASETS.switch_scope_and_registry(scope) as registry:
        return registry.get(dataset['type']) if isinstance(dataset['type'], str) else dataset['type']


def class_names(classes: Any) -> list[str] | None:
    """Return class names as a list; metainfo may name a file with one per line."""
    if isinstance(classes, str):
        return Path(classes).read_text().split('\n') if osp.isfile(classes) else [classes]
    return None if classes is None else list(classes)


def path_below(dataset: Mapping[str, Any], path: str) -> Path:
    """Return a path in a data set's root."""
    return Path(osp.expanduser(osp.join(dataset.get('data_root') or '', path)))


def is_remote(dataset: Mapping[str, Any]) -> bool:
    """Whether a data set's files are behind a storage client."""
    return bool(dataset.get('backend_args') or dataset.get('file_client_args'))
