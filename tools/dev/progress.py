"""Says how far a step of the set-up is."""

from __future__ import annotations

import re
import sys
import time

NINJA_STEP = re.compile(r'^\s*\[(\d+)/(\d+)\]')


class Progress:
    """Says what is going on, for how long, and how much longer: one changing line on a terminal, else some lines."""

    def __init__(self, step: str, expected_s: float) -> None:
        self.step, self.expected_s = step, expected_s
        self.start = self.printed = time.monotonic()
        self.done = self.total = 0
        print(f'{step} (about {_clock(expected_s)})', flush=True)

    def read(self, line: str) -> None:
        """Take the counts out of a line that ninja printed."""
        match = NINJA_STEP.match(line)
        if match:
            self.done, self.total = int(match[1]), int(match[2])

    def tick(self) -> None:
        """Show the state, at most once a second on a terminal and every twenty seconds elsewhere."""
        now = time.monotonic()
        if now - self.printed < (1 if sys.stdout.isatty() else 20):
            return
        self.printed, elapsed = now, now - self.start
        left = elapsed / self.done * (self.total - self.done) if self.done else self.expected_s - elapsed
        count = f'{self.done} of {self.total} files, ' if self.total else ''
        rest = f'about {_clock(left)} left' if left >= 1 else 'longer than estimated'
        text = f'  {count}{_clock(elapsed)} gone, {rest}'
        print(f'\r{text:<78}' if sys.stdout.isatty() else text, end='' if sys.stdout.isatty() else '\n', flush=True)

    def finish(self) -> None:
        """Close the step's line."""
        text = f'  done in {_clock(time.monotonic() - self.start)}'
        print(f'\r{text:<78}' if sys.stdout.isatty() else text, flush=True)


def _clock(seconds: float) -> str:
    return f'{int(seconds) // 60}:{int(seconds) % 60:02d} min'
