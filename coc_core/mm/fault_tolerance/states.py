"""Which training state a run goes on from, and what of the run must be as it was."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.runner import Runner

from coc_core.checkpoints.reading import CheckpointError, check_file, read, read_without_tensors
from coc_core.errors import UserError
from coc_core.mm.fault_tolerance.saving import POINTER, RESCUE, describe_run
from coc_core.mm.fault_tolerance.settings import changes, shown

_STATES = ('epoch_*.pth', 'iter_*.pth', RESCUE.format('*'))
_WEIGHTS = 'best_*.pth'
# Set above 0 by launchers that start a failed training again.
_RESTARTS = ('TORCHELASTIC_RESTART_COUNT', 'SLURM_RESTART_COUNT')


@dataclass
class TrainingState:
    """A file that a training can go on from.

    Attributes:
        path: The file.
        meta: What it says of the training: ``epoch``, ``iter``, ``seed`` and ``run``.
        notes: What the log must say about going on from it.
    """

    path: Path
    meta: dict[str, Any]
    notes: list[str] = field(default_factory=list)


def was_restarted() -> bool:
    """Whether a launcher has started this training before, so that it must go on by itself."""
    return any(os.environ.get(name, '0') not in ('', '0') for name in _RESTARTS)


def find_state(work_dir: str) -> TrainingState | None:
    """Return the newest whole training state of a work folder, or None where there is no file of one.

    The name in ``last_checkpoint`` is only one more place to look: folders get moved, and files damaged.

    Raises:
        CheckpointError: There are files, but none is whole.
    """
    found, problems = [], []
    for path in _state_files(Path(work_dir)):
        try:
            content = read_without_tensors(path)
        except CheckpointError as error:
            problems.append(str(error))
            continue
        if _is_state(content):
            found.append((content['meta']['iter'], path.stat().st_mtime_ns, path))
    for _, _, path in sorted(found, reverse=True):
        try:
            return TrainingState(path, read_state(path).meta, [f'Passed over: {problem}' for problem in problems])
        except CheckpointError as error:
            problems.append(str(error))
    if problems:
        raise CheckpointError(
            f'No whole training state is in {work_dir}: {" ".join(problems)} --overwrite starts the training anew.'
        )
    return None


def _state_files(folder: Path) -> list[Path]:
    found = {path for pattern in _STATES for path in folder.glob(pattern) if path.is_file()}
    pointer = folder / POINTER
    if pointer.is_file():
        last = Path(pointer.read_text(encoding='utf-8', errors='replace').strip().replace('\0', ''))
        # A damaged one may hold a name that no system takes.
        with suppress(OSError):
            if not (folder / last.name).is_file() and last.is_file():
                found.add(last)
    return sorted(found)


def _is_state(content: dict[str, Any]) -> bool:
    meta = content.get('meta')
    return 'optimizer' in content and isinstance(meta, dict) and {'epoch', 'iter'} <= meta.keys()


def read_state(path: Path) -> TrainingState:
    """Read a training state and compare its checksums.

    Raises:
        CheckpointError: The file does not exist, is damaged, or holds weights alone.
    """
    check_file(path)
    content = read(path)
    if not isinstance(content, dict) or not _is_state(content):
        raise CheckpointError(
            f'{path} holds weights alone, no training to go on from: '
            f'--cfg-options load_from={path} starts a new training from them.'
        )
    return TrainingState(path, content['meta'])


def find_start(cfg: Config, resume: str | None, *, overwrite: bool) -> TrainingState | None:
    """Return what a training goes on from, or None where it starts.

    Args:
        cfg: The config, with its work folder.
        resume: A path, ``auto`` for the newest state of the work folder if it has one, or None.
        overwrite: Whether a training that is in the work folder already may be replaced.

    Raises:
        UserError: What is named is no whole training state, or the work folder holds a training that nothing was said
            about.
    """
    if was_restarted():
        # What the first start was told is done; a path is only where there is nothing newer yet.
        resume, overwrite = 'auto' if resume is None or earlier_files(cfg.work_dir) else resume, False
    # A config or --cfg-options may ask for it just as well as the command line.
    asked = resume or (cfg.get('load_from') or 'auto' if cfg.get('resume') else None)
    if asked and overwrite:
        raise UserError('--overwrite starts a training anew, and --resume goes on with it: name one of them.')
    if asked == 'auto':
        return find_state(cfg.work_dir)
    if asked:
        state = read_state(Path(asked).expanduser())
        _check_newest(cfg.work_dir, state.path)
        return state
    there = earlier_files(cfg.work_dir)
    if there and not overwrite:
        raise UserError(
            f'{cfg.work_dir} holds a training already ({there[-1].name}): --resume goes on with it, '
            '--work-dir names another folder, --overwrite starts it anew.'
        )
    return None


def _check_newest(work_dir: str, path: Path) -> None:
    """Check that a later `--resume auto` would not take another state of the work folder for a newer one."""
    there = earlier_files(work_dir)
    if not there:
        return
    newest = there[-1]
    if path.resolve().parent == Path(work_dir).resolve():
        found = find_state(work_dir)
        if found is None or found.path.resolve() == path.resolve():
            return
        newest = found.path
    raise UserError(
        f'{work_dir} holds {newest.name}, which a later --resume would take for newer than what comes after {path}: '
        '--work-dir names another folder to go on in, --resume alone goes on from the newest state there.'
    )


def earlier_files(work_dir: str) -> list[Path]:
    """Return the checkpoints that an earlier training left in a work folder."""
    return sorted(path for pattern in (*_STATES, _WEIGHTS) for path in Path(work_dir).glob(pattern))


def remove_earlier(work_dir: str) -> None:
    """Remove an earlier training's checkpoints, so that none of them is ever taken for this one's."""
    for path in (*earlier_files(work_dir), Path(work_dir) / POINTER):
        path.unlink(missing_ok=True)


def keep_run(cfg: Config, state: TrainingState, processes: int) -> None:
    """Write into a config what a training that goes on must keep: its seed and its global batch.

    Args:
        cfg: The config.
        state: What training goes on from; gets notes about what is different.
        processes: Number of processes of this run.

    Raises:
        UserError: The batch cannot be what it was.
    """
    seed = state.meta.get('seed')
    randomness = dict(cfg.get('randomness') or {})
    if seed is not None:
        if randomness.get('seed') not in (None, seed):
            state.notes.append(f'The seed stays {seed}, as in {state.path.name}, not {randomness["seed"]}.')
        cfg.randomness = randomness | dict(seed=seed)
    run = state.meta.get('run') or {}
    if not run.get('batch_size'):
        state.notes.append(f'{state.path.name} does not say on how many processes and with what batch it was trained.')
        return
    _keep_batch(cfg, state, run, processes)
    now = (cfg.get('optim_wrapper') or {}).get('accumulative_counts', 1)
    if now != run['accumulative_counts']:
        raise UserError(
            f'{state.path} accumulates gradients over {run["accumulative_counts"]} steps, the config over {now}: '
            f'set optim_wrapper.accumulative_counts={run["accumulative_counts"]}.'
        )


def _keep_batch(cfg: Config, state: TrainingState, run: dict[str, Any], processes: int) -> None:
    was, loader = run['processes'] * run['batch_size'], cfg.train_dataloader
    if processes * loader.batch_size == was and processes == run['processes']:
        return
    before = f'{run["processes"]} process(es) with batches of {run["batch_size"]}'
    if processes == run['processes'] or was % processes:
        remedy = (
            f'set train_dataloader.batch_size={run["batch_size"]}'
            if processes == run['processes']
            else f'{was} samples do not divide among {processes} processes; take a number that divides it'
        )
        raise UserError(
            f'{state.path} was trained on {before}, now there are {processes} with batches of {loader.batch_size}: '
            f'{remedy}, or start from its weights with load_from.'
        )
    loader.batch_size = was // processes
    exact = '' if loader.get('batch_sampler') is None else ' Its batch sampler groups them anew from here on.'
    state.notes.append(
        f'Before: {before}; now: {processes} with batches of {loader.batch_size}. The {was} samples of a step, the '
        f'learning rate and the length stay the same; sums are rounded otherwise.{exact}'
    )


def check_same_data(runner: Runner, state: TrainingState) -> None:
    """Check that a training goes on with its data and optimizer, and note what else is other than before.

    Raises:
        UserError: The samples are more or fewer, or others, or the optimizer is of another kind.
    """
    run = state.meta.get('run')
    if not run:
        return
    now = describe_run(runner)

    def differ(key: str, part: int) -> bool:
        return key in run and key in now and run[key][part] != now[key][part]

    remedy = 'bring the data back, or start from its weights with load_from.'
    samples = now['samples']
    if run.get('samples', samples) != samples:
        raise UserError(
            f'{state.path} was trained on {run["samples"]} samples, the training data has {samples} now: {remedy}'
        )
    if differ('data', 0):
        raise UserError(
            f'{state.path} was trained on other samples than the {samples} that the training data has now (their files '
            f'or labels have changed): {remedy}'
        )
    if run.get('optimizer', now['optimizer']) != now['optimizer']:
        raise UserError(
            f'{state.path} was trained by {run["optimizer"]}, whose state {now["optimizer"]} has no use for: set '
            f'optim_wrapper.optimizer.type={run["optimizer"]}, or start from its weights with load_from.'
        )
    if differ('data', 1):
        state.notes.append('The samples have another order than before: some of this epoch come again, and some not.')
    if differ('val_data', 0):
        state.notes.append(
            'The validation data has other samples than before: its numbers do not compare with the earlier ones, by '
            'which the best checkpoint was chosen so far.'
        )
    for key, unit in (('threads', ' threads'), ('precision', '')):
        if run.get(key, now[key]) != now[key]:
            state.notes.append(f'{run[key]}{unit} before, {now[key]} now: sums are rounded otherwise.')
    found = changes(run.get('settings') or now['settings'], now['settings'])
    # The batch of all processes is what it was.
    if found := [change for change in found if not change.startswith('train_dataloader.batch_size ')]:
        state.notes.append(f'Another config from here on: {shown(found)}.')
    done, end = state.meta['iter'], runner.max_iters
    if done > end:
        state.notes.append(f'{state.path.name} is after {done} steps, and training ends after {end}: none is added.')
