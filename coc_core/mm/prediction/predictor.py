"""A model that predicts files: a config, a checkpoint, and what a task makes of both."""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import MODELS
from torch import nn
from torch.utils.data import DataLoader

from coc_core import checkpoints
from coc_core.checkpoints.loading import tell_differences
from coc_core.checkpoints.reading import check_file
from coc_core.errors import UserError, during
from coc_core.mm.augmentation import augmentation
from coc_core.mm.configs import load_config
from coc_core.mm.mistakes import building
from coc_core.mm.models import build_model
from coc_core.mm.prediction.inputs import Found, Item, Shard, in_batches, items_of
from coc_core.mm.prediction.predictions import Predictions, Wishes
from coc_core.mm.prediction.samples import (
    Batch,
    Collate,
    Group,
    Samples,
    build_pipeline,
    collate_function,
    start_worker,
)
from coc_core.mm.task import Task, task_of, test_dataset
from coc_core.mm.trained_classes import classes_of
from coc_core.ops.context import is_dead

# After as many samples on which the pipeline or the model failed, and none that it passed, it is to blame.
FAILURES = 20


@dataclass(frozen=True)
class Outcome:
    """What became of one sample.

    Attributes:
        item: The sample.
        columns: What the table says of the sample itself.
        sample: The data sample that the model returned; None where there is a problem.
        problem: The sentence about a sample that cannot be predicted.
    """

    item: Item
    columns: Mapping[str, Any]
    sample: Any = None
    problem: str | None = None


class Predictor:
    """Predicts files with the model of a config; made by `from_config`.

    Attributes:
        task: The config's task.
        files: The kinds of files that it reads.
        predictions: What becomes of its predictions.
        batch_size: The number of samples in a batch of the config's test.
        digest: What tells the model, its pipeline and its classes from others, whatever else the config says.

    Args:
        cfg: The config.
        name: What messages call it.
        model: Its model, ready to predict.
        pipeline: The steps of the pipeline, as configs name them.
        meta: What the data set says of its classes.
        wishes: What the user asks of predictions.
    """

    def __init__(
        self,
        cfg: Config,
        name: str,
        model: nn.Module,
        pipeline: Sequence[Any],
        meta: Mapping[str, Any],
        wishes: Wishes,
    ) -> None:
        self.task = task_of(cfg)
        self._model = model.eval()
        self._device = next((value.device for value in model.parameters()), torch.device('cpu'))
        # Whether the pipeline has passed a sample, and the model predicted one: then what they fail on is to blame.
        self._loads = self._predicts = False
        transforms = build_pipeline(pipeline, name)
        self.files = self.task.predicted_files()(transforms)
        self._samples = Samples(transforms, self.files)
        self._collate = Collate(collate_function(cfg, self.task.loader_defaults))
        self.predictions = _predictions_of(self.task)(meta, wishes, cfg.get('visualizer'))
        self.batch_size: int = cfg.test_dataloader.get('batch_size') or 1
        parts = [cfg.get(key) for key in ('model', 'data_preprocessor', 'tta_model', 'tta_pipeline')]
        told = repr((*parts, test_dataset(cfg).get('pipeline'), meta.get('classes')))
        self.digest = hashlib.sha256(told.encode()).hexdigest()

    @classmethod
    def from_config(
        cls,
        config: str,
        checkpoint: str,
        options: Mapping[str, Any] | None = None,
        *,
        device: str | None = None,
        tta: bool = False,
        score: float | None = None,
        top_k: int = 5,
    ) -> Predictor:
        """Build the model of a config and load a checkpoint strictly.

        Args:
            config: The config file.
            checkpoint: The checkpoint file.
            options: What ``--cfg-options`` change in the config.
            device: Where the model runs; None: on a GPU where there is one.
            tta: Whether it averages over augmented copies.
            score: The least score of an object; None: the task's.
            top_k: How many classes are listed, where one class is meant.

        Raises:
            UserError: The config cannot be read, built or predicted with, or an argument is impossible.
            CheckpointError: The checkpoint cannot be read, or is another model's.
        """
        check_file(Path(checkpoint).expanduser())
        place = _device(device)
        cfg = load_config(config, options)
        if cfg.get('test_dataloader') is None:
            raise UserError(f'{config} cannot be predicted with: it has no test_dataloader.')
        wishes = _checked(Wishes(score, top_k), _predictions_of(task_of(cfg)))
        tta_model, pipeline = augmentation(cfg) if tta else (None, test_dataset(cfg).get('pipeline') or [])
        model = build_model(cfg, config)
        content = checkpoints.read(checkpoint)
        tell_differences(checkpoints.load_content(model, content, checkpoint))
        meta = classes_of(cfg, content, checkpoint)
        if tta_model is not None:
            with building('the tta_model'):
                model = MODELS.build({**tta_model, 'module': model})
        return cls(cfg, config, model.to(place), pipeline, meta, wishes)

    def predict(
        self, found: Found, shard: Shard, done: set[str], *, every: int, batch_size: int, workers: int
    ) -> Iterator[list[Outcome]]:
        """Predict files; yield what became of the samples, a batch at a time, and of files that cannot be read.

        Args:
            found: The files.
            shard: This process's part of them.
            done: The keys of samples that are passed over.
            every: See `items_of`.
            batch_size: How many samples go through the model together at most.
            workers: Processes that load samples; 0: this one.
        """
        self._loads |= bool(done)
        self._predicts |= bool(done)
        unreadable: list[Outcome] = []

        def tell(item: Item, problem: str) -> None:
            unreadable.append(Outcome(item, {}, problem=problem))

        items = items_of(found, self.files, shard=shard, done=done, every=every, tell=tell)
        for outcomes in self.outcomes(items, batch_size=batch_size, workers=workers):
            yield [*unreadable, *outcomes]
            unreadable.clear()
        yield unreadable

    def outcomes(self, items: Iterable[Item], *, batch_size: int, workers: int = 0) -> Iterator[list[Outcome]]:
        """Predict samples; yield what became of them, a batch at a time, in their order.

        Args:
            items: The samples.
            batch_size: How many go through the model together at most.
            workers: Processes that load samples; 0: this one.
        """
        # Batches come back in their order, and what was read already need not come back with them.
        waiting: deque[list[Item]] = deque()
        loader: DataLoader[Any] = DataLoader(
            self._samples,
            batch_sampler=in_batches(items, batch_size, waiting.append),  # type: ignore[arg-type]
            num_workers=workers,
            collate_fn=self._collate,
            worker_init_fn=start_worker,
        )
        held: list[list[Outcome]] = []
        unloaded: list[Item] = []
        unpredicted: list[Item] = []
        for batch in _told(loader, waiting):
            members = waiting.popleft()
            outcomes, refused = self._run(members, batch)
            held.append(outcomes)
            self._loads |= bool(batch.groups)
            self._predicts |= any(outcome.sample is not None for outcome in outcomes)
            unloaded = [] if self._loads else [*unloaded, *(members[place] for place in batch.failed)]
            unpredicted = [] if self._predicts else [*unpredicted, *refused]
            suspicious = len(unloaded) + len(unpredicted)
            if not suspicious or suspicious >= FAILURES:
                self._raise(unloaded, unpredicted)
                yield from held
                held.clear()
        self._raise(unloaded, unpredicted)
        yield from held

    def _raise(self, unloaded: Sequence[Item], unpredicted: Sequence[Item]) -> None:
        """Raise the error of the pipeline, or the model, with its trace, where it has failed on every sample so far."""
        for item in (*unloaded[:1], *unpredicted[:1]):
            for group in self._collate([self._samples[item]]).groups:
                with during(f'predicting {item}'):
                    self._forward(group)

    def rows(self, paths: Sequence[str]) -> list[dict[str, Any]]:
        """Return a table's rows for some files: for what brings its own files, processes and tables.

        A film has a row for each frame. A file that cannot be predicted has a row with ``problem``.
        """
        found = Found(os.sep, [os.path.abspath(path) for path in paths])
        batches = self.predict(found, Shard(), set(), every=1, batch_size=self.batch_size, workers=0)
        return [self.row(outcome) for outcomes in batches for outcome in outcomes]

    def row(self, outcome: Outcome) -> dict[str, Any]:
        """Return a table's row."""
        row = {'path': outcome.item.path, 'frame': outcome.item.place, **outcome.columns}
        if outcome.problem is not None:
            return {**row, 'problem': outcome.problem}
        return {**row, **self.predictions.columns(outcome.sample)}

    def _run(self, items: Sequence[Item], batch: Batch) -> tuple[list[Outcome], list[Item]]:
        """Return what became of a batch, and the samples that the model failed on without a word for their user."""
        found: dict[int, Any] = {}
        problems = dict(batch.problems)
        refused: list[Item] = []
        for group in batch.groups:
            problem = ''
            try:
                found.update(zip(group.places, self._forward(group), strict=True))
            except UserError as error:
                problem = f'{str(items[group.places[0]]).rstrip(",")}: {error}'
            except Exception as error:
                if is_dead(self._device):
                    raise
                reason = ' '.join(f'{type(error).__name__}: {error}'.split())
                problem = f'{items[group.places[0]]} cannot be predicted: the model failed ({reason}).'
                refused += [items[place] for place in group.places if len(group.places) == 1]
            if problem and len(group.places) == 1:
                problems[group.places[0]] = problem
            elif problem:
                # Whose fault it is shows alone, and what is too much together may have room.
                for place in group.places:
                    alone, blamed = self._run([items[place]], self._collate(self._samples.__getitems__([items[place]])))
                    found[place], problems[place] = alone[0].sample, alone[0].problem or ''
                    refused += blamed
        outcomes = [
            Outcome(item, batch.columns[place] or {}, found.get(place), problems.get(place) or None)
            for place, item in enumerate(items)
        ]
        return outcomes, refused

    def _forward(self, group: Group) -> list[Any]:
        with torch.no_grad():
            return list(self._model.test_step(group.data))  # type: ignore[operator]


def _told(batches: Iterable[Batch], waiting: Sequence[Sequence[Item]]) -> Iterator[Batch]:
    """Yield batches; tell in a sentence where a worker was killed, near which sample."""
    try:
        yield from batches
    except RuntimeError as error:
        if not str(error).startswith('DataLoader worker'):
            raise
        raise UserError(
            f'A process that loads samples ended ({str(error).splitlines()[0].rstrip(".")}), most often because the '
            f'memory is full, at {waiting[0][0]} or soon after: lower --workers or --batch-size, or leave out what is '
            'too large; the same command goes on.'
        ) from error


def _predictions_of(task: Task) -> type[Predictions]:
    kind = task.predictions()
    if kind is None:
        raise UserError(
            f'Nobody says what becomes of the predictions of a model of the scope {task.scope}: '
            'set `predictions` of its Task.'
        )
    return kind


def _checked(wishes: Wishes, kind: type[Predictions]) -> Wishes:
    """Return what the user asks for with the task's defaults."""
    if wishes.top_k < 1:
        raise UserError(f'--top-k {wishes.top_k} must be at least 1.')
    if wishes.score is not None and kind.default_score is None:
        raise UserError(f'--score {wishes.score:g} is the least score of an object, and this model finds no objects.')
    if wishes.score is not None and not 0 <= wishes.score <= 1:
        raise UserError(f'--score {wishes.score:g} must be between 0 and 1.')
    return Wishes(kind.default_score if wishes.score is None else wishes.score, wishes.top_k)


def _device(name: str | None) -> torch.device:
    name = name or ('cuda' if torch.cuda.is_available() else 'cpu')
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (AssertionError, RuntimeError, NotImplementedError) as error:
        reason = str(error).splitlines()[0].rstrip('.')
        raise UserError(f'--device {name} cannot be used ({reason}): choose another, such as cpu.') from error
    return device
