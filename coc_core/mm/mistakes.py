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
            if _is_of_a_name(error):
                # The rest is advice for those who write packages.
                reason = str(error.args[0]).partition(' Please check')[0].rstrip('.')
                # Python 3.13 asks whether another name was meant.
                end = '' if reason.endswith('?') else '.'
                raise UserError(
                    f'{what[0].upper()}{what[1:]} cannot be built: {reason}{end} Correct the config; what takes the '
                    'place of an inherited part needs _delete_=True, a class of your own its module in custom_imports.'
                ) from error
            raise


def raised_by_packages(error: BaseException) -> bool:
    """Whether an installed package raised an error, not code of the user's that it ran."""
    return _PACKAGES in _place_of(error).parents


def _is_of_a_name(error: Exception) -> bool:
    """Whether mmengine's registry knows no such name, or an installed class takes no argument of such a name."""
    if isinstance(error, TypeError) and 'unexpected keyword argument' in str(error):
        return raised_by_packages(error)
    return _place_of(error).parent == _REGISTRY and isinstance(error, (KeyError, TypeError))


def _place_of(error: BaseException) -> Path:
    return Path(traceback.extract_tb(error.__traceback__)[-1].filename)
