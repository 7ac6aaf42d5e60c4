from __future__ import annotations

import io
import os
import pty
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.evaluator import BaseMetric
from mmengine.model import BaseModel
from mmengine.runner import Runner
from rich.console import Console
from torch import nn

from coc_core.mm.hooks.progress import ProgressBarHook, terminal_console


class Model(BaseModel):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 1)

    def forward(self, inputs: Any, data_samples: Any = None, mode: str = 'tensor') -> Any:
        out = self.layer(torch.stack([inputs, data_samples]))
        return {'loss': out.mean()} if mode == 'loss' else [out]


class Metric(BaseMetric):
    def process(self, data_batch: Any, data_samples: Any) -> None:
        self.results.append(1)

    def compute_metrics(self, results: list[int]) -> dict[str, float]:
        return {'count': float(len(results))}


class Items(torch.utils.data.Dataset[torch.Tensor]):
    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.full((2,), float(index))


def build(work_dir: Path, by_epoch: bool) -> Runner:
    loader = dict(dataset=Items(), batch_size=2, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False))
    stop = dict(by_epoch=True, max_epochs=2) if by_epoch else dict(by_epoch=False, max_iters=8, val_interval=4)
    hooks = dict(logger=dict(type='LoggerHook', interval=1), checkpoint=None)
    return Runner(
        Model(),
        str(work_dir),
        train_dataloader=loader,
        val_dataloader=loader,
        test_dataloader=loader,
        train_cfg=stop,
        val_cfg=dict(),
        test_cfg=dict(),
        val_evaluator=[Metric()],
        test_evaluator=[Metric()],
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        default_hooks=hooks,
        log_processor=dict(by_epoch=by_epoch),
        experiment_name=work_dir.name,
    )


@pytest.mark.parametrize('by_epoch', [True, False])
def test_bar_follows_every_loop(tmp_path: Path, by_epoch: bool) -> None:
    screen = io.StringIO()
    hook = ProgressBarHook(Console(file=screen, force_terminal=True, width=100))
    runner = build(tmp_path / f'epochs_{by_epoch}', by_epoch)
    runner.register_hook(hook)
    totals: dict[str, list[float]] = {}
    original = hook._update

    def spy(name: str, **fields: Any) -> None:
        original(name, **fields)
        totals.setdefault(name, []).append(fields['completed'])

    hook._update = spy  # type: ignore[method-assign]
    runner.train()
    runner.test()
    assert totals['train'] == [*range(1, 9)]
    assert totals['val'] == [1, 2, 3, 4] * 2
    assert totals['test'] == [1, 2, 3, 4]
    assert '8/8' in screen.getvalue()
    assert ('train epoch 2/2' in screen.getvalue()) is by_epoch
    assert hook._progress is None


def drain(terminal: int, into: list[bytes]) -> None:
    """Reads until the other end is closed, which a terminal reports as an error."""
    try:
        while data := os.read(terminal, 65536):
            into.append(data)
    except OSError:
        pass


def test_log_lines_pass_through_the_bar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    leader, follower = pty.openpty()
    shown: list[bytes] = []
    reader = threading.Thread(target=drain, args=(leader, shown))
    reader.start()
    with os.fdopen(follower, 'w') as terminal, monkeypatch.context() as patch:
        patch.setattr(sys, 'stdout', terminal)
        runner = build(tmp_path / 'terminal', by_epoch=True)
        runner.register_hook(ProgressBarHook())
        handlers = [item for item in runner.logger.handlers if getattr(item, 'stream', None) is terminal]
        assert handlers
        runner.train_loop  # noqa: B018
        runner.call_hook('before_train')
        assert handlers[0].stream is not terminal
        runner.logger.info('a line of the log')
        runner.call_hook('after_train')
        assert handlers[0].stream is terminal
    reader.join()
    os.close(leader)
    text = b''.join(shown).decode()
    # The bar is erased before the line is written, hence no bar to the left of it.
    line = next(item for item in text.splitlines() if 'a line of the log' in item)
    assert '━' not in line


def test_without_terminal_nothing_happens(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert terminal_console() is None
    runner = build(tmp_path / 'plain', by_epoch=True)
    runner.register_hook(ProgressBarHook())
    runner.train()
    assert '━' not in capfd.readouterr().out
