"""Ends a training in order: after a signal, with its state saved; or where the loss is no number any more."""

from __future__ import annotations

import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dist import get_world_size, is_main_process
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch.utils.data import DataLoader, get_worker_info

from coc_core.errors import UserError
from coc_core.mm.fault_tolerance.saving import checkpoint_hook

# A terminal's Ctrl-C reaches each process twice: directly and through the launcher.
_ONE_PRESS = 1.0
# What a queue's warning asks for: the exit code by which tools/slurm_train.sh and other launchers start again.
START_AGAIN = 75
EXIT_CODES = {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGUSR1: START_AGAIN}
_NOT_FINITE = 1000


class Interrupted(SystemExit):
    """A signal ended the training after its state was saved; the code is one of `EXIT_CODES`."""


@HOOKS.register_module()
class StopHook(Hook):  # type: ignore[misc]
    """Stops all processes of a training after the same step.

    After SIGTERM, SIGINT or SIGUSR1 the step is finished and the state saved; a second signal ends at once. After
    ``not_finite`` losses in a row that are not finite, the training fails; where GradScaler skips the steps of such
    losses, they count too.

    Args:
        not_finite: Number of losses in a row that are not finite at which to fail.

    Raises:
        Interrupted: A signal came.
        UserError: The loss is not finite; before training: the processes do not go on from the same step.
    """

    # After every other hook has seen the step, and after SafeCheckpointHook has saved what is due.
    priority = 'LOWEST'

    def __init__(self, not_finite: int = 3) -> None:
        if not_finite < 1:
            raise UserError(f'StopHook: not_finite={not_finite} must be at least 1.')
        self.not_finite = not_finite
        self._bad = 0
        self._signal = 0
        self._signaled_at = 0.0
        self._handlers: dict[int, Any] = {}
        self._process = 0
        self._group: Any = None
        self._vote: tuple[torch.Tensor, Any] | None = None
        self._batches = 0

    def before_train(self, runner: Runner) -> None:
        """Take the signals over."""
        self._process = os.getpid()
        for number in EXIT_CODES:
            self._handlers[number] = signal.signal(number, self._note)
        if get_world_size() > 1:
            # Flags are numbers of the CPU: exchanging them there makes no GPU wait.
            self._group = torch.distributed.new_group(backend='gloo', timeout=peer_timeout(runner.cfg))
            self._check_same_start(runner)

    def after_train(self, runner: Runner) -> None:
        """Give the signals back."""
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers.clear()

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Stop after this step where a process wants to."""
        loss = runner.message_hub.log_scalars.get('train/loss')
        finite = loss is None or math.isfinite(loss.current())
        self._bad = 0 if finite else self._bad + 1
        wanted = self._agree(_NOT_FINITE if self._bad >= self.not_finite else self._signal)
        if wanted == _NOT_FINITE:
            raise UserError(_divergence(runner, data_batch, self.not_finite))
        if wanted:
            hook = checkpoint_hook(runner)
            if hook is not None:
                hook.save_state(runner, runner.iter + 1)
            self._interrupt(runner, wanted, runner.iter + 1)

    def before_val_epoch(self, runner: Runner) -> None:
        """Count the batches that every process validates: processes agree only while all of them are there."""
        self._batches = len(runner.val_dataloader)
        if self._group is not None:
            count = torch.tensor(self._batches)
            torch.distributed.all_reduce(count, torch.distributed.ReduceOp.MIN, group=self._group)
            self._batches = int(count)

    def after_val_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Stop while validating: the state was saved before."""
        # A run that only evaluates ends as Python does.
        if self._handlers and batch_idx < self._batches:
            wanted = self._agree(self._signal)
            if wanted:
                self._interrupt(runner, wanted, runner.iter)

    def _check_same_start(self, runner: Runner) -> None:
        """Check that all processes go on from the same step, which they look up in the work folder each for itself."""
        steps = [torch.tensor(0) for _ in range(get_world_size())]
        torch.distributed.all_gather(steps, torch.tensor(runner.iter), group=self._group)
        found = sorted({int(step) for step in steps})
        if len(found) > 1:
            raise UserError(
                f'The processes found different states in {runner.work_dir} (after {" and ".join(map(str, found))} '
                'steps): the work folder must be on a disk that all machines share.'
            )

    def _note(self, number: int, frame: Any) -> None:
        if os.getpid() != self._process:
            # Data workers are born with this handler; their parent ends them. So are processes of a pool, of a metric
            # for instance, which must end as they would without it: their parent waits for that.
            if get_worker_info() is None:
                signal.signal(number, self._handlers.get(number) or signal.SIG_DFL)
                os.kill(os.getpid(), number)
            return
        now = time.monotonic()
        if self._signal and now - self._signaled_at > _ONE_PRESS:
            os._exit(EXIT_CODES[signal.Signals(self._signal)])
        if not self._signal:
            self._signal, self._signaled_at = number, now
            if is_main_process():
                name = signal.Signals(number).name
                os.write(2, f'\n{name}: stopping after this step; the same again stops at once.\n'.encode())

    def _agree(self, wanted: int) -> int:
        """Return what any process wants; of several, what they wanted a step ago, for which nobody waits."""
        if self._group is None:
            return wanted
        last = 0
        if self._vote is not None:
            flag, work = self._vote
            work.wait()
            last = int(flag)
        flag = torch.tensor(wanted)
        work = torch.distributed.all_reduce(flag, torch.distributed.ReduceOp.MAX, group=self._group, async_op=True)
        self._vote = flag, work
        return last

    def _interrupt(self, runner: Runner, number: int, steps: int) -> None:
        hook = checkpoint_hook(runner)
        saved = hook.newest if hook is not None else None
        goes_on = f'{saved} holds its state: --resume goes on from there' if saved else 'nothing was saved'
        runner.logger.info(f'{signal.Signals(number).name} stopped the training after {steps} steps; {goes_on}.')
        if self._vote is not None:
            self._vote[1].wait()
            self._vote = None
        sys.stdout.flush()
        raise Interrupted(EXIT_CODES[signal.Signals(number)])


def shield_workers(loader: DataLoader[Any]) -> None:
    """Have a loader's workers end on SIGTERM from their own process alone.

    A queue sends it to all processes of a job; a dead worker would end the training in the middle of its step.
    """
    loader.worker_init_fn = partial(_start_worker, loader.worker_init_fn)


def _start_worker(start: Callable[[int], None] | None, number: int) -> None:
    if start is not None:
        start(number)
    # No handler tells who sent a signal; a thread that waits for it does.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)


def peer_timeout(cfg: Config) -> timedelta:
    """Return how long a process waits for another: ``env_cfg.dist_cfg.timeout`` in seconds, half an hour by default."""
    distributed = (cfg.get('env_cfg') or {}).get('dist_cfg') or {}
    return timedelta(seconds=distributed.get('timeout', 1800))


def _divergence(runner: Runner, batch: Any, times: int) -> str:
    """Say where and with what the loss stopped being a number."""
    scalars = runner.message_hub.log_scalars
    terms = ', '.join(
        f'{name.removeprefix("train/")} {value.current():.4g}'
        for name, value in scalars.items()
        if name.startswith('train/') and 'loss' in name
    )
    rates = scalars.get('train/lr')
    rate = f' at a learning rate of {rates.current():.4g}' if rates is not None else ''
    hook = checkpoint_hook(runner)
    good = hook.newest if hook is not None and hook.newest else 'none'
    samples = batch.get('data_samples') if isinstance(batch, dict) else None
    files = [str(path) for sample in samples or () if (path := getattr(sample, 'img_path', None))]
    where = f' The batch: {", ".join(files)}.' if files else ''
    return (
        f'The loss is not finite at step {runner.iter + 1} ({terms}{rate}), {times} times in a row. '
        f'The training stops; lower the learning rate or look at the data.{where} The last good checkpoint: {good}.'
    )
