"""Names of classes that a user gives, as words or as a text file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from coc_core.errors import UserError


def read_classes(given: Sequence[str]) -> list[str]:
    """Return the names that ``--classes`` gives: words, or one file that has a name in each line.

    Raises:
        UserError: The file is not there, is no text, has no names, or a name comes twice.
    """
    if len(given) == 1 and (Path(given[0]).is_file() or Path(given[0]).suffix == '.txt'):
        return names_in(Path(given[0]))
    return checked(list(given), '--classes')


def names_in(file: Path) -> list[str]:
    """Return the names in a text file, one a line; empty lines at its end are none.

    Raises:
        UserError: It cannot be read, has no names, or a name comes twice.
    """
    try:
        # Editors of Windows begin a file with a byte order mark.
        lines = file.read_text(encoding='utf-8-sig').rstrip().splitlines()
    except OSError as error:
        raise UserError(f'The list of classes {file} cannot be read: {error.strerror}.') from error
    except UnicodeDecodeError as error:
        raise UserError(f'The list of classes {file} is no text in UTF-8: save it as such.') from error
    return checked([line.strip() for line in lines], f'The list of classes {file}')


def checked(names: list[str], what: str) -> list[str]:
    """Return names of classes.

    Raises:
        UserError: There are none, one is empty, or one comes twice.
    """
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if not names or '' in names:
        raise UserError(f'{what} must have a name for each class, one a line, and has {names[:10]}.')
    if repeated:
        raise UserError(f'{what} has {repeated[0]!r} twice: each class has a name of its own.')
    return names
