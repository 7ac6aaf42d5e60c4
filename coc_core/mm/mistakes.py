"""Tells a user's mistake in a config from an error in somebody's code, which keeps its stack trace."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import mmengine.registry

from coc_core.errors import UserError, during

_REGISTRY = Path(mmengine.registry.__file__).parent
_PACKAGES = _REGISTRY.parents[1]


@contextmanager
def building(what: str) -> Iterator[None]:
    """Build a part of a config: a wrong name in it becomes one sentence, any other error keeps its stack trace.

    Args:
        what: The part, as it stands after "error while building".

    Raises:
        UserError: A ``type`` is in no registry, or its class takes no argument of that name or lacks one.
    """
    with during(f'building {what}'):
        try:
            yield
        except Exception as error:
            mistake = told_mistake(error)
            if mistake is not None:
                raise mistake from error
            if _is_of_a_name(error):
                # The rest is advice for those who write packages.
                reason = str(error.args[0]).partition(' Please check')[0].rstrip('.')
                raise UserError(
                    f'{what[0].upper()}{what[1:]} cannot be built: {reason}. Correct the config; a class of your own '
                    'needs its module in custom_imports.'
                ) from error
            raise


def told_mistake(error: BaseException) -> UserError | None:
    """Return the sentence that an error wraps, or None: mmengine hides what a plugin's import says, for example."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, UserError):
            return seen
        seen = seen.__cause__ or seen.__context__
    return None


def _is_of_a_name(error: Exception) -> bool:
    """Whether mmengine's registry knows no such name, or an installed class takes no argument of such a name."""
    frame = Path(traceback.extract_tb(error.__traceback__)[-1].filename)
    if isinstance(error, TypeError) and 'unexpected keyword argument' in str(error):
        return _PACKAGES in frame.parents
    return frame.parent == _REGISTRY and isinstance(error, (KeyError, TypeError))
