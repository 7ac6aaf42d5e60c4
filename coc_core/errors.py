"""The error whose text is meant for the user as it stands, and what is said before any other."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager


class UserError(ValueError):
    """A mistake in data, a path, an option or a name, told in one sentence that names the remedy.

    The tools print it without a stack trace and exit with its code.
    """

    exit_code = 2


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return `` Did you mean 'x'?`` for the names nearest to ``name``, or an empty string."""
    near = difflib.get_close_matches(name, list(known), n=3, cutoff=0.5)
    return f' Did you mean {" or ".join(repr(n) for n in near)}?' if near else ''


@contextmanager
def during(step: str) -> Iterator[None]:
    """Say on stderr in which step of a run an unexpected error happened, in one line before its stack trace.

    A `UserError` passes without a word, for its sentence says everything. Of nested steps the innermost speaks.

    Args:
        step: What was being done, as it stands after "error while".
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if not getattr(error, 'step_is_told', False):
            print(f'error while {step}:', file=sys.stderr, flush=True)
            error.step_is_told = True  # type: ignore[attr-defined]
        raise
