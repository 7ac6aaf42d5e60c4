"""Loads samples in the workers of a data loader, through the steps of a config's test pipeline."""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import cv2
import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import FUNCTIONS, TRANSFORMS
from torch.utils.data import Dataset

from coc_core.errors import UserError, during
from coc_core.mm.mistakes import building
from coc_core.mm.prediction.inputs import Item


@dataclass(frozen=True)
class Loaded:
    """One sample.

    Attributes:
        data: What the pipeline made of it; None where it cannot be loaded.
        columns: What the table says of the sample itself, such as its size.
        problem: The sentence about a sample that cannot be loaded.
        failed_step: The pipeline's step that failed though the file can be read: the sample's fault, or the step's own.
    """

    data: Any = None
    columns: Mapping[str, Any] | None = None
    problem: str | None = None
    failed_step: str | None = None


@dataclass(frozen=True)
class Group:
    """Samples of a batch that have one size, so that none is padded for another's sake.

    Attributes:
        places: Which samples of the batch they are.
        data: What the model takes.
    """

    places: list[int]
    data: Any


@dataclass(frozen=True)
class Batch:
    """A batch as a worker hands it over.

    Attributes:
        groups: The samples that could be loaded.
        columns: What the table says of each sample of the batch itself.
        problems: The sentences about the others, by their places in the batch.
        failed: Those of them on which a step failed though their files can be read.
    """

    groups: list[Group]
    columns: list[Mapping[str, Any] | None]
    problems: dict[int, str]
    failed: list[int]


class Samples(Dataset[Loaded]):
    """Loads what it is asked for by an `Item`; it holds no list of samples, so its copies in workers are small.

    Args:
        transforms: The steps of the pipeline, built.
        files: The kinds of files that the task reads.
    """

    def __init__(self, transforms: Sequence[Any], files: Any) -> None:
        self.transforms = list(transforms)
        self.files = files

    def __getitem__(self, item: Item) -> Loaded:
        """Load a sample; one that its user has to mend becomes a sentence, any other error keeps its stack trace."""
        loaded, error = self._load(item)
        if error is not None:
            with during(f'running {loaded.failed_step} on {item}'):
                raise error
        return loaded

    def __getitems__(self, items: Sequence[Item]) -> list[Loaded]:
        """Load a batch; a sample that a step fails on becomes a sentence too: the others tell whose fault it is."""
        return [self._load(item)[0] for item in items]

    def _load(self, item: Item) -> tuple[Loaded, Exception | None]:
        """Return a sample, and the error of a step that failed though the file can be read."""
        # Augmented copies are the same whoever makes them, and after whichever other sample.
        seed = zlib.crc32(item.key.encode(errors='surrogateescape'))
        random.seed(seed)
        np.random.seed(seed)
        step: Any = self.files
        try:
            data: Any = self.files.start(item)
            columns = self.files.columns(data)
            for step in self.transforms:
                if item.content is not None and step is self.files.file_step:
                    continue
                data = step(data)
                if data is None:
                    raise UserError(f'{item} is left out by {type(step).__name__} of the pipeline.')
                columns = columns or self.files.columns(data)
        except UserError as error:
            told = str(error)
            return Loaded(problem=told if item.path in told else f'{str(item).rstrip(",")}: {told}'), None
        except Exception as error:
            if (problem := self.files.problem(item)) is not None:
                return Loaded(problem=problem), None
            name, reason = type(step).__name__, ' '.join(f'{type(error).__name__}: {error}'.split())
            problem = f'{item} cannot be predicted: {name} of the pipeline failed ({reason}).'
            return Loaded(problem=problem, failed_step=name), error
        return Loaded(data, columns), None


def build_pipeline(steps: Sequence[Any], name: str) -> list[Any]:
    """Build the steps of a test pipeline but those that load what is to be predicted.

    Raises:
        UserError: A name in it is unknown.
    """
    with building(f'the test pipeline of {name}'):
        return [TRANSFORMS.build(step) for step in without_annotations(steps)]


def without_annotations(steps: Sequence[Any]) -> list[Any]:
    """Return a pipeline without the steps that load annotations, also within the steps that hold others."""
    kept: list[Any] = []
    for step in steps:
        if isinstance(step, (list, tuple)):
            inner = without_annotations(step)
            kept += [inner] if inner else []
        elif not _loads_annotations(step):
            inside = step.get('transforms') if isinstance(step, Mapping) else None
            kept.append({**step, 'transforms': without_annotations(inside)} if inside else step)
    return kept


def _loads_annotations(step: Any) -> bool:
    kind = step.get('type') if isinstance(step, Mapping) else type(step)
    name = kind.rpartition('.')[2] if isinstance(kind, str) else getattr(kind, '__name__', '')
    return name.startswith('Load') and 'Annotation' in name


def collate_function(cfg: Config, defaults: Mapping[str, Any]) -> Callable[[list[Any]], Any]:
    """Return what a config's test joins samples by.

    Args:
        cfg: The config.
        defaults: What its task's data loaders have where the config is silent.
    """
    settings = dict({**defaults, **cfg.test_dataloader}.get('collate_fn') or dict(type='pseudo_collate'))
    kind = settings.pop('type')
    join = FUNCTIONS.get(kind) if isinstance(kind, str) else kind
    return partial(join, **settings)


class Collate:
    """Joins samples of one size.

    Args:
        join: What a config's test joins samples by.
    """

    def __init__(self, join: Callable[[list[Any]], Any]) -> None:
        self._join = join

    def __call__(self, loaded: Sequence[Loaded]) -> Batch:
        """Join a batch."""
        sizes: dict[Any, list[int]] = {}
        for place, sample in enumerate(loaded):
            if sample.problem is None:
                sizes.setdefault(_shapes(sample.data['inputs']), []).append(place)
        groups = [Group(places, self._join([loaded[place].data for place in places])) for places in sizes.values()]
        problems = {place: sample.problem for place, sample in enumerate(loaded) if sample.problem is not None}
        failed = [place for place, sample in enumerate(loaded) if sample.failed_step is not None]
        return Batch(groups, [sample.columns for sample in loaded], problems, failed)


def _shapes(inputs: Any) -> Any:
    """Return the shape of what goes into a network, of each augmented copy where there are several."""
    return tuple(inputs.shape) if hasattr(inputs, 'shape') else tuple(_shapes(copy) for copy in inputs)


def start_worker(number: int) -> None:
    """Keep a worker to one core: there are others."""
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
