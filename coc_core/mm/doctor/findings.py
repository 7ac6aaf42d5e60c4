"""What a probe found: one line for a person, facts for a report of a bug."""

from __future__ import annotations

import getpass
import json
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from typing import Any

OK, NOTE, WRONG = 'ok', 'note', 'WRONG'


@dataclass(frozen=True)
class Finding:
    """One line.

    Attributes:
        name: What was looked at.
        says: What it is; or what is wrong with it, and the command that mends it.
        state: `OK`; `NOTE`, which somebody may miss and most do not; `WRONG`.
        facts: The same for programs, of what JSON takes.
    """

    name: str
    says: str
    state: str = OK
    facts: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f'{self.state:5}  {self.name:18} {self.says}'


@dataclass(frozen=True)
class Probe:
    """A look at one thing.

    Attributes:
        name: What is said of it where the look itself fails.
        look: Gives what it found, one after the other.
    """

    name: str
    look: Callable[[], Iterable[Finding]]


def findings(probes: Sequence[Probe]) -> Iterator[Finding]:
    """Yield what each probe finds; a probe that fails is a finding, too."""
    for probe in probes:
        found = []
        try:
            # Packages warn, and some print, when they are imported.
            with warnings.catch_warnings(), redirect_stdout(sys.stderr):
                warnings.simplefilter('ignore')
                for finding in probe.look():
                    found.append(finding)
        except Exception as error:
            found.append(failure(probe.name, error))
        yield from map(scrubbed, found)


def failure(name: str, error: Exception) -> Finding:
    """Return the finding that a look at something failed."""
    return Finding(name, f'cannot be told: {one_line(error)}', WRONG, {'error': one_line(error)})


def one_line(error: BaseException) -> str:
    """Return an error in one line of moderate length."""
    words = ' '.join(f'{type(error).__name__}: {error}'.split())
    return words if len(words) <= 300 else f'{words[:300]} ...'


def report(found: Sequence[Finding]) -> str:
    """Return all findings as one JSON object."""
    entries = [dict(name=f.name, state=f.state, says=f.says, facts=f.facts) for f in found]
    return json.dumps(dict(wrong=sum(f.state == WRONG for f in found), findings=entries), indent=1)


def scrubbed(finding: Finding) -> Finding:
    """Return a finding without the user's name and home folder."""
    return Finding(finding.name, _scrub(finding.says), finding.state, _scrub(finding.facts))


def _scrub(value: Any) -> Any:
    if isinstance(value, str):
        home, user = _person()
        value = re.sub(rf'{re.escape(home)}(?=/|\W|$)', '~', value) if home != '/' else value
        return re.sub(rf'(?<=/){re.escape(user)}(?=/|\W|$)', 'USER', value) if user else value
    if isinstance(value, dict):
        return {key: _scrub(each) for key, each in value.items()}
    return [_scrub(each) for each in value] if isinstance(value, list | tuple) else value


def _person() -> tuple[str, str]:
    # A container's user may have neither.
    try:
        user = getpass.getuser()
    except (OSError, KeyError):
        user = ''
    return os.path.expanduser('~'), user
