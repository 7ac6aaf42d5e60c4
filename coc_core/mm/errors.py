"""The one exception whose text is meant for the user as it stands."""

from __future__ import annotations


class LaunchError(ValueError):
    """A mistake in what the user asked for, told in one sentence.

    The tools print it without a stack trace and exit with code 2.
    """
