"""Training loops that go on, bit for bit, at the step where an earlier run of the same training was cut."""

from __future__ import annotations

from typing import Any

from mmengine.registry import LOOPS
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, Runner
from torch import nn
from torch.utils.data import DataLoader

from coc_core.mm.fault_tolerance.saving import checkpoint_hook
from coc_core.mm.fault_tolerance.seeding import place_samples, seed_step


def _placed(runner: Runner, loader: Any, *, endless: bool) -> DataLoader[Any]:
    if isinstance(loader, dict):
        loader = runner.build_dataloader(
            loader, seed=runner.seed, diff_rank_seed=runner._randomness_cfg.get('diff_rank_seed', False)
        )
    return place_samples(loader, runner.seed, endless=endless)


def _validate(runner: Runner, iteration: int) -> None:
    """Validate a state once: one that a kill cut short is done again when training goes on."""
    if runner.message_hub.runtime_info.get('last_validation') == iteration:
        return
    hook = checkpoint_hook(runner)
    if hook is not None:
        # A kill, or a signal to stop, while validating must not cost what was trained.
        hook.save_state(runner, iteration)
    runner.val_loop.run()


@LOOPS.register_module()
class ResumableEpochLoop(EpochBasedTrainLoop):  # type: ignore[misc]
    """mmengine's loop over epochs, in which a resumed training begins inside an epoch where it was cut there.

    Every step and every sample is seeded by its place (see `fault_tolerance.seeding`). A validation that is due for the
    state from which training goes on, and was not finished, is done first.

    Args:
        runner: The runner.
        dataloader: The training data, or its config.
        kwargs: What mmengine's loop takes.
    """

    def __init__(self, runner: Runner, dataloader: Any, **kwargs: Any) -> None:
        super().__init__(runner, _placed(runner, dataloader, endless=False), **kwargs)

    def run(self) -> nn.Module:
        """Train until the last epoch."""
        self.runner.call_hook('before_train')
        self._validate_if_due()
        while self._epoch < self._max_epochs and not self.stop_training:
            self.run_epoch()
            self._validate_if_due()
        self.runner.call_hook('after_train')
        model: nn.Module = self.runner.model
        return model

    def run_epoch(self) -> None:
        """Train to the end of the epoch."""
        self.runner.call_hook('before_train_epoch')
        self.runner.model.train()
        start = self._iter - self._epoch * len(self.dataloader)
        self.dataloader.batch_sampler.begin(self._epoch, start)
        for place, batch in enumerate(self.dataloader, start):
            self.run_iter(place, batch)
        self.runner.call_hook('after_train_epoch')
        self._epoch += 1

    def run_iter(self, idx: int, data_batch: Any) -> None:
        """Train one step."""
        seed_step(self.runner.seed, self._iter)
        super().run_iter(idx, data_batch)

    def _validate_if_due(self) -> None:
        self._decide_current_val_interval()
        at_end_of_epoch = self._epoch > 0 and self._iter == self._epoch * len(self.dataloader)
        due = self._epoch % self.val_interval == 0 or self._epoch == self._max_epochs
        if self.runner.val_loop is not None and at_end_of_epoch and due and self._epoch >= self.val_begin:
            _validate(self.runner, self._iter)


@LOOPS.register_module()
class ResumableIterLoop(IterBasedTrainLoop):  # type: ignore[misc]
    """mmengine's loop over iterations, which goes on with the very samples that would have come next.

    Every step and every sample is seeded by its place (see `fault_tolerance.seeding`). A validation that is due for the
    state from which training goes on, and was not finished, is done first.

    Args:
        runner: The runner.
        dataloader: The training data, or its config.
        kwargs: What mmengine's loop takes.
    """

    def __init__(self, runner: Runner, dataloader: Any, **kwargs: Any) -> None:
        super().__init__(runner, _placed(runner, dataloader, endless=True), **kwargs)

    def run(self) -> nn.Module:
        """Train until the last iteration."""
        self.runner.call_hook('before_train')
        self.runner.call_hook('before_train_epoch')
        self.dataloader.batch_sampler.begin(0, self._iter)
        self.dataloader_iterator = iter(self.dataloader)
        self._validate_if_due()
        while self._iter < self._max_iters and not self.stop_training:
            self.runner.model.train()
            self.run_iter(next(self.dataloader_iterator))
            self._validate_if_due()
        self.runner.call_hook('after_train_epoch')
        self.runner.call_hook('after_train')
        model: nn.Module = self.runner.model
        return model

    def run_iter(self, data_batch: Any) -> None:
        """Train one step."""
        seed_step(self.runner.seed, self._iter)
        super().run_iter(data_batch)

    def _validate_if_due(self) -> None:
        self._decide_current_val_interval()
        due = self._iter > 0 and (self._iter % self.val_interval == 0 or self._iter == self._max_iters)
        if self.runner.val_loop is not None and due and self._iter >= self.val_begin:
            _validate(self.runner, self._iter)
