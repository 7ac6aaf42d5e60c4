"""Checkpoints that no kill costs: nothing is removed before what takes its place is whole and on the disk."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import get_world_size, is_main_process
from mmengine.hooks import CheckpointHook
from mmengine.model import is_model_wrapper
from mmengine.optim import AmpOptimWrapper
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from coc_core.checkpoints.reading import CheckpointError, check_sums
from coc_core.errors import UserError
from coc_core.files import megabytes, remove_unfinished, write_bytes
from coc_core.mm.mixed_precision import Bfloat16OptimWrapper

RESCUE = 'rescue_{}.pth'
POINTER = 'last_checkpoint'
# Adam's two moments and the weights, the largest state that the recipes make.
_STATE_PER_WEIGHT = 3
# Entries of a config that make the training what it is. `FollowConfigHook` looks after those of the optimizer.
_TRAINED_BY = ('model', 'data_preprocessor', 'train_dataloader', 'train_cfg', 'custom_hooks')


@HOOKS.register_module(name=['SafeCheckpointHook', 'CheckpointHook'], force=True)
class SafeCheckpointHook(CheckpointHook):  # type: ignore[misc]
    """mmengine's CheckpointHook, whose place it takes in the registry, with four differences.

    - An older checkpoint is removed only after the newer one is on the disk and its checksums were compared. One older
      checkpoint stays, whatever ``max_keep_ckpts`` says.
    - A training state is saved at optimizer steps alone: one that falls between two of them, where gradients are
      accumulated, waits for the next.
    - Weights that are not finite are not saved.
    - ``rescue_N.pth`` is the state after iteration N where regular checkpoints are far apart. The next regular one
      removes it.

    Args:
        rescue_minutes: Time after which a state is saved between regular checkpoints; None: never.
        stop_on_failed_save: Whether a checkpoint that cannot be written ends the training. Otherwise training goes on,
            warns at each one, and fails at its end.
        args, kwargs: What mmengine's hook takes.

    Raises:
        UserError: Before training: the disk cannot take one checkpoint. At the end, or at once where it is so
            configured: a checkpoint could not be written.
    """

    def __init__(
        self, *args: Any, rescue_minutes: float | None = 10.0, stop_on_failed_save: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.max_keep_ckpts: int
        self.file_backend: Any
        if self.max_keep_ckpts > 0:
            self.max_keep_ckpts = max(2, self.max_keep_ckpts)
        self.rescue_minutes = rescue_minutes
        self.stop_on_failed_save = stop_on_failed_save
        self._saved_iteration = -1
        self._saved_at = 0.0
        # The number of a checkpoint that waits for the next optimizer step.
        self._owed: int | None = None
        self._failures: list[str] = []
        # The newest whole training state, a rescue or a regular one.
        self.newest: str | None = None

    def before_train(self, runner: Runner) -> None:
        """Remove what a kill left, and check that a checkpoint has room."""
        super().before_train(runner)
        if runner.iter > 0:
            self.newest, self._saved_iteration = str(runner._load_from), runner.iter
        self._saved_at = time.monotonic()
        if not is_main_process():
            return
        remove_unfinished(Path(runner.work_dir))
        for path in runner.message_hub.runtime_info.get('outdated_best', []):
            self._remove(Path(self.out_dir) / Path(path).name)
        _check_room(runner)

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Save what is due after this iteration."""
        super().after_train_iter(runner, batch_idx, data_batch, outputs)
        if self._owed is not None and _at_optimizer_step(runner):
            number = self._owed if self.by_epoch else runner.iter + 1
            self._save_checkpoint_with_step(runner, number, dict(epoch=runner.epoch, iter=runner.iter + 1))
        elif self.rescue_minutes is not None and time.monotonic() - self._saved_at > 60 * self.rescue_minutes:
            self.save_state(runner, runner.iter + 1)

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Note that this state is validated, and keep it where it is the best."""
        runner.message_hub.update_info('last_validation', runner.iter)
        super().after_val_epoch(runner, metrics)

    def after_train(self, runner: Runner) -> None:
        """Fail where a checkpoint could not be written."""
        super().after_train(runner)
        if self._failures:
            raise UserError(
                f'The training is done, but {len(self._failures)} of its checkpoints could not be saved. '
                f'The last failure: {self._failures[-1]} The last whole checkpoint is {self.newest or "none"}.'
            )

    def save_state(self, runner: Runner, iteration: int) -> None:
        """Save the state after ``iteration`` as a rescue checkpoint, unless it is saved already.

        Between two optimizer steps nothing is saved: the gradients that wait there are in no checkpoint.
        """
        if iteration == self._saved_iteration or not _at_optimizer_step(runner):
            return
        name = RESCUE.format(iteration)
        if self._write(runner, name, dict(epoch=runner.epoch, iter=iteration), runner.work_dir):
            self._saved(runner, str(Path(runner.work_dir) / name), iteration)
            self._remove_rescues(runner, keep=2)

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict[str, Any]) -> None:
        if not _at_optimizer_step(runner):
            self._owed = step
            return
        self._owed = None
        hub = runner.message_hub
        before = {name: hub.runtime_info.get(name) for name in ('keep_ckpt_ids', 'last_ckpt')}
        ids = [number for number in getattr(self, 'keep_ckpt_ids', ()) if number != step] + [step]
        name = self.filename_tmpl.format(step)
        path = self.file_backend.join_path(self.out_dir, name)
        if self.max_keep_ckpts > 0:
            # One more than are kept: where a kill keeps the oldest, mmengine removes it when training goes on.
            hub.update_info('keep_ckpt_ids', ids)
        hub.update_info('last_ckpt', path)
        if not self._write(runner, name, meta, self.out_dir):
            hub.runtime_info.update({name: value for name, value in before.items() if value is not None})
            return
        self.last_ckpt = path
        self._saved(runner, path, meta['iter'])
        if self.max_keep_ckpts > 0:
            for number in ids[: -self.max_keep_ckpts]:
                self._remove(Path(self.file_backend.join_path(self.out_dir, self.filename_tmpl.format(number))))
            self.keep_ckpt_ids.clear()
            self.keep_ckpt_ids.extend(ids[-self.max_keep_ckpts :])
        self._remove_rescues(runner, keep=0)

    def _write(self, runner: Runner, name: str, meta: dict[str, Any], folder: str) -> bool:
        """Write a training state; return whether it is there."""
        meta['run'] = describe_run(runner)
        try:
            if is_main_process():
                _check_finite(runner, name)
            runner.save_checkpoint(
                folder,
                name,
                self.file_client_args,
                save_optimizer=self.save_optimizer,
                save_param_scheduler=self.save_param_scheduler,
                meta=meta,
                by_epoch=self.by_epoch,
                backend_args=self.backend_args,
                **self.args,
            )
            if is_main_process():
                _read_back(Path(folder) / name)
        except UserError as error:
            self._fail(runner, error)
            return False
        return True

    def _fail(self, runner: Runner, error: UserError) -> None:
        if self.stop_on_failed_save:
            raise error
        self._failures.append(str(error))
        runner.logger.warning(f'{error} Training goes on; the last whole checkpoint is {self.newest or "none"}.')

    def _saved(self, runner: Runner, path: str, iteration: int) -> None:
        self.newest = path
        self._saved_iteration = iteration
        self._saved_at = time.monotonic()
        if is_main_process():
            try:
                write_bytes(Path(runner.work_dir) / POINTER, path.encode())
            except UserError as error:
                self._fail(runner, error)

    def _save_best_checkpoint(self, runner: Runner, metrics: dict[str, float]) -> None:
        hub, backend = runner.message_hub, self.file_backend
        noted = {name: value for name, value in hub.runtime_info.items() if name.startswith('best_')}
        paths = dict(getattr(self, 'best_ckpt_path_dict', {})), getattr(self, 'best_ckpt_path', None)
        self.file_backend = later = _RemovesLater(backend)
        hub.update_info('outdated_best', later.removed)
        try:
            if is_main_process():
                _check_finite(runner, 'The best checkpoint')
            super()._save_best_checkpoint(runner, metrics)
        except UserError as error:
            for name in [name for name in hub.runtime_info if name.startswith('best_')]:
                del hub.runtime_info[name]
            hub.runtime_info.update(noted)
            if self.save_best and len(self.key_indicators) > 1:
                self.best_ckpt_path_dict.update(paths[0])
            else:
                self.best_ckpt_path = paths[1]
            later.removed.clear()
            self._fail(runner, error)
        finally:
            self.file_backend = backend
        # What was saved again is the best under another number, and stays.
        best = {str(value) for name, value in hub.runtime_info.items() if name.startswith('best_ckpt')}
        for path in set(later.removed) - best:
            self._remove(Path(path))

    def _remove_rescues(self, runner: Runner, keep: int) -> None:
        rescues = sorted(
            Path(runner.work_dir).glob(RESCUE.format('*')), key=lambda path: int(path.stem.rpartition('_')[2])
        )
        for path in rescues[: len(rescues) - keep]:
            self._remove(path)

    def _remove(self, path: Path) -> None:
        if not is_main_process():
            return
        if self.file_backend.isfile(str(path)):
            self.file_backend.remove(str(path))
        elif self.file_backend.isdir(str(path)):
            self.file_backend.rmtree(str(path))


class _RemovesLater:
    """A file backend that notes what is to be removed."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend
        self.removed: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def remove(self, path: str) -> None:
        self.removed.append(path)

    rmtree = remove


def checkpoint_hook(runner: Runner) -> SafeCheckpointHook | None:
    """Return the runner's hook that saves training states, if it has one."""
    return next((hook for hook in runner.hooks if isinstance(hook, SafeCheckpointHook)), None)


def describe_run(runner: Runner) -> dict[str, Any]:
    """Return what a resumed training must have in common with this one, as a checkpoint holds it in ``meta['run']``."""
    # What only registers has no use for them.
    from coc_core.mm.fault_tolerance.data_identity import identity_of
    from coc_core.mm.fault_tolerance.settings import settings_of

    loader = runner.train_dataloader
    wrapper = runner.optim_wrapper
    # The first process writes and compares for all.
    loops = [('data', runner.train_loop), ('val_data', runner.val_loop)] if is_main_process() else []
    identities = {key: identity_of(loop.dataloader.dataset) for key, loop in loops if loop is not None}
    return dict(
        processes=get_world_size(),
        batch_size=getattr(loader.batch_sampler, 'batch_size', None),
        accumulative_counts=getattr(wrapper, '_accumulative_counts', 1),
        samples=len(loader.dataset),
        threads=torch.get_num_threads(),
        precision=_precision(wrapper),
        optimizer=type(getattr(wrapper, 'optimizer', wrapper)).__name__,
        settings=settings_of({key: runner.cfg[key] for key in _TRAINED_BY if key in runner.cfg}),
        **{key: identity for key, identity in identities.items() if identity is not None},
    )


def _precision(wrapper: Any) -> str:
    """Return the number format that a training computes in."""
    if isinstance(wrapper, Bfloat16OptimWrapper):
        return 'bfloat16'
    if isinstance(wrapper, AmpOptimWrapper):
        return str(wrapper.cast_dtype or torch.float16).removeprefix('torch.')
    return 'float32'


def _at_optimizer_step(runner: Runner) -> bool:
    wrapper = runner.optim_wrapper
    wrappers = [item for _, item in wrapper.items()] if hasattr(wrapper, 'optim_wrappers') else [wrapper]
    return all(item.should_update() for item in wrappers)


def _check_finite(runner: Runner, name: str) -> None:
    model = runner.model.module if is_model_wrapper(runner.model) else runner.model
    bad = [key for key, value in model.state_dict().items() if not bool(torch.isfinite(value).all())]
    if bad:
        more = f' and {len(bad) - 1} others' if len(bad) > 1 else ''
        raise UserError(f'{name} is not saved: {bad[0]}{more} of the weights are not finite.')


def _read_back(path: Path) -> None:
    if not path.is_file():
        return  # It went to another place than this machine's disk, or is a folder.
    try:
        check_sums(path)
    except CheckpointError as error:
        raise UserError(f'{path} is not what was written: the disk may be failing.') from error


def _check_room(runner: Runner) -> None:
    """Check that the disk can take one training state, the smallest that a training needs."""
    weights = sum(value.numel() * value.element_size() for value in runner.model.state_dict().values())
    needed = _STATE_PER_WEIGHT * weights
    free = shutil.disk_usage(runner.work_dir).free
    if free < needed:
        raise UserError(
            f'{runner.work_dir} has no room for a checkpoint: about {megabytes(needed)} are needed, '
            f'{megabytes(free)} are free. Name a folder on another disk with --work-dir.'
        )
