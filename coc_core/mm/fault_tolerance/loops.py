"""Training loops that go on, bit for bit, at the step where an earlier run of the same training was cut."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from mmengine.registry import LOOPS
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, Runner
from torch import nn

from coc_core.errors import during
from coc_core.mm.fault_tolerance.faults import explained
from coc_core.mm.fault_tolerance.saving import checkpoint_hook
from coc_core.mm.fault_tolerance.seeding import place_samples, seed_step


class _Resumable:
    """What both loops have in common: every step and every sample is seeded by its place (see `seeding`)."""

    endless: bool
    runner: Runner

    def __init__(self, runner: Runner, dataloader: Any, **kwargs: Any) -> None:
        if isinstance(dataloader, dict):
            dataloader = runner.build_dataloader(
                dataloader, seed=runner.seed, diff_rank_seed=runner._randomness_cfg.get('diff_rank_seed', False)
            )
        super().__init__(runner, place_samples(dataloader, runner.seed, endless=self.endless), **kwargs)  # type: ignore[call-arg]

    def run_iter(self, *batch: Any) -> None:
        """Train one step."""
        step: int = self._iter  # type: ignore[attr-defined]
        seed_step(self.runner.seed, step)
        # What is raised here costs a newcomer an hour, and it is nearly always this.
        cause = ' (most often classes, channels or sizes of the model are not those of the data)' if step == 0 else ''
        with during(f'training step {step + 1}{cause}'), explained():
            super().run_iter(*batch)  # type: ignore[misc]

    def _validate_if_due(self) -> None:
        """Validate this state once: a validation that a kill cut short is done when training goes on."""
        loop: Any = self
        loop._decide_current_val_interval()
        done, end = self._progress()
        due = done > 0 and done >= loop.val_begin and (done % loop.val_interval == 0 or done == end)
        validated = self.runner.message_hub.runtime_info.get('last_validation') == loop._iter
        if self.runner.val_loop is None or not due or validated:
            return
        hook = checkpoint_hook(self.runner)
        if hook is not None:
            # A kill, or a signal to stop, while validating must not cost what was trained.
            hook.save_state(self.runner, loop._iter)
        with during('evaluating (most often the evaluator or the classes are not those of the data)'), explained():
            self.runner.val_loop.run()

    @abstractmethod
    def _progress(self) -> tuple[int, int]:
        """Return how many epochs or iterations are done, 0 inside an epoch, and how many there are."""


@LOOPS.register_module()
class ResumableEpochLoop(_Resumable, EpochBasedTrainLoop):  # type: ignore[misc]
    """mmengine's loop over epochs, in which a resumed training begins inside an epoch where it was cut there.

    Args:
        runner: The runner.
        dataloader: The training data, or its config.
        kwargs: What mmengine's loop takes.
    """

    endless = False

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

    def _progress(self) -> tuple[int, int]:
        at_end_of_epoch = self._iter == self._epoch * len(self.dataloader)
        return self._epoch if at_end_of_epoch else 0, self._max_epochs


@LOOPS.register_module()
class ResumableIterLoop(_Resumable, IterBasedTrainLoop):  # type: ignore[misc]
    """mmengine's loop over iterations, which goes on with the very samples that would have come next.

    Args:
        runner: The runner.
        dataloader: The training data, or its config.
        kwargs: What mmengine's loop takes.
    """

    endless = True

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

    def _progress(self) -> tuple[int, int]:
        return self._iter, self._max_iters
