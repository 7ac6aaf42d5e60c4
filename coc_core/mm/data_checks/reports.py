"""All that is wrong with the data of a config, every file opened: what ``check_data.py`` prints."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial

from mmengine.config import Config

from coc_core.errors import UserError
from coc_core.mm.data_checks.batches import check_loading
from coc_core.mm.data_checks.checks import check_data, config_problems, inspections
from coc_core.mm.data_checks.inspection import Inspection, Sample
from coc_core.mm.data_checks.problems import Problem

PHASES = ('train', 'val', 'test')


@dataclass
class Report:
    """What was found in one data set."""

    name: str
    summary: str
    problems: list[dict[str, str]]

    def __str__(self) -> str:
        told = [f'  {problem["level"]}: {problem["text"]}' for problem in self.problems]
        return '\n'.join([f'{self.name}: {self.summary or "no size known"}', *told])

    @property
    def errors(self) -> int:
        """The number of problems that training must not begin with."""
        return sum(problem['level'] == 'error' for problem in self.problems)


def reports_of(cfg: Config, phases: Sequence[str], workers: int) -> Iterator[Report]:
    """Yield what is wrong with each data set: where files are there and the classes fit, and then what is in them."""
    usable = []
    for phase in phases:
        if sentence := refused_by(partial(check_data, cfg, [phase], contents=False)):
            yield Report(f'{phase} data', 'cannot be used', [dict(level='error', text=sentence)])
            continue
        usable.append(phase)
        # What of it is an error has refused the data.
        if told := [dict(level=problem.level, text=str(problem)) for problem in config_problems(cfg, phase)]:
            yield Report(f'{phase} settings', 'as the config has them', told)
    for inspection in inspections(cfg, usable, files=True):
        problems = [*inspection.problems, *open_samples(inspection, workers)]
        told = [dict(level=problem.level, text=str(problem)) for problem in problems]
        yield Report(inspection.name, inspection.summary, told)
        if any(problem.level == 'error' for problem in problems):
            usable = []
    for phase in usable:
        if sentence := refused_by(partial(check_loading, cfg, phase)):
            yield Report(f'{phase} data', 'cannot be loaded', [dict(level='error', text=sentence)])


def refused_by(run: Callable[[], None]) -> str | None:
    """Return the sentence with which a check refuses the data."""
    try:
        run()
    except UserError as error:
        return str(error)
    return None


def open_samples(inspection: Inspection, workers: int) -> list[Problem]:
    """Open every sample, with a progress bar on a terminal; returns the problems."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    with ProcessPoolExecutor(max(1, workers)) as pool:
        results = track(
            pool.map(open_sample, inspection.samples, chunksize=8),
            description='files',
            total=len(inspection.samples),
            console=console,
            disable=not console.is_terminal,
        )
        return list(inspection.opened(results))


def open_sample(sample: Callable[[], Sample]) -> Sample:
    """Open one sample, in a process of its own."""
    return sample()
