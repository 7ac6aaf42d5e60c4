"""What a text of ``--cfg-options`` means: a value, which depends on the entry of the config that it replaces."""

from __future__ import annotations

import ast
import re
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mmengine.config import DictAction
from mmengine.config.config import DELETE_KEY

from coc_core.errors import UserError

# A quote opens a string only where a value begins: the one in `it's` is a letter.
_TOKENS = re.compile(r"""(?<![^\s\[({,:])(?:'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*")|.""", re.DOTALL)
_SEQUENCES = {'[]': list, '()': tuple}
_NAMES = {str: 'a string', bool: 'a bool', int: 'a number', float: 'a number', list: 'a list', tuple: 'a tuple'}
_SINGLE = (str, bool, int, float)
_REFUSED_FOR = {int: (str, bool), float: (str, bool), bool: (str, int, float), dict: (bool, int, float)}


@dataclass(frozen=True)
class OptionText:
    """A value of the command line that is not read yet."""

    text: str


class _RefusedError(ValueError):
    pass


def read_option(key: str, given: Any, entry: Any) -> Any:
    """Return the value of an option for the entry that it replaces.

    A text is read as Python reads a literal; beyond that, as in OpenMMLab, a bare word is a string, ``a,b`` a list
    (a tuple where one stood) and ``true`` a bool. Where a string stood, or a list of strings, numbers and bools stay
    the text that they are, and so does ``a,b`` where a string stood; an int becomes a float where floats stood, and a
    whole float an int where ints stood.

    Refused are a string or a bool for a number, a string or a number for a bool, a number or a bool for a dict, a
    string for a tuple, and anything single for a list; so are such items of lists. All else may replace all else:
    many arguments of mm* take a number or a tuple, a name or a dict, a dict or a list, and None.

    Args:
        key: The key of the option, for messages.
        given: An `OptionText`, or a value that is passed on as it is.
        entry: The entry that is replaced; None where there is none.

    Raises:
        UserError: The text cannot be read, or its value cannot stand there.
    """
    if not isinstance(given, OptionText):
        return given
    text = given.text.strip()
    try:
        return _adapt(_parse_option(text, entry), entry, key)
    except _RefusedError as error:
        if isinstance(entry, str):
            return text
        raise UserError(f'--cfg-options {key}={text}: {error}.') from None


def _parse_option(text: str, entry: Any) -> Any:
    strings = _kinds(entry) == {str}
    pieces = _split(text)
    if isinstance(entry, str) or len(pieces) == 1:
        return _parse(text, strings)
    kind = tuple if isinstance(entry, tuple) else list
    return kind(_parse(piece, strings) for piece in _items(pieces))


def _parse(text: str, strings: bool) -> Any:
    """Return the value of a text without commas outside of brackets; ``strings`` keeps bare numbers as text."""
    kind = _SEQUENCES.get(text[:1] + text[-1:])
    if kind is not None:
        return kind(_parse(piece, strings) for piece in _items(_split(text[1:-1])))
    value = DictAction._parse_int_float_bool(text)
    if isinstance(value, str):
        value = _literal(text)
    return text if strings and isinstance(value, (int, float)) else value


def _literal(text: str) -> Any:
    """Return the quoted string, the dict or the number that a text is; the text itself where it is none."""
    try:
        # In brackets a comment is a syntax error, for it hides the closing one.
        value = ast.literal_eval(f'({text})')
    except (ValueError, TypeError, SyntaxError):
        value = None
    if isinstance(value, (str, dict, int, float)):
        return value
    if re.fullmatch(r'\{.*\}|dict\(.*\)', text, re.DOTALL):
        raise _RefusedError("this is no dict: write {'name': value}, with quotes around every name and string")
    return text


def _split(text: str) -> list[str]:
    """Return what stands between the commas outside of brackets and quotes."""
    depth, pieces = 0, ['']
    for token in _TOKENS.findall(text):
        depth += (token in '[({') - (token in '])}')
        if depth < 0:
            break
        if token == ',' and depth == 0:
            pieces.append('')
        else:
            pieces[-1] += token
    if depth != 0:
        raise _RefusedError('the brackets do not match; put quotes around a string that has brackets')
    return [piece.strip() for piece in pieces]


def _items(pieces: list[str]) -> list[str]:
    items = pieces if pieces[-1] else pieces[:-1]
    if '' in items:
        raise _RefusedError("nothing stands before a comma; write '' for an empty string")
    return items


def _kinds(entry: Any) -> set[type]:
    """Return the types of an entry, or of everything in a list; None says nothing."""
    if isinstance(entry, (list, tuple)):
        return set().union(*map(_kinds, entry))
    if isinstance(entry, Mapping):
        return {dict}
    return set() if entry is None else {type(entry)}


def _adapt(value: Any, entry: Any, place: str) -> Any:
    """Return a value as it can stand in the place of an entry."""
    if isinstance(value, dict) and isinstance(entry, Mapping):
        if value.get(DELETE_KEY):
            return value
        return {name: _adapt(item, entry.get(name), f'{place}.{name}') for name, item in value.items()}
    value = _adapt_leaves(value, entry, place)
    if isinstance(value, _SINGLE if isinstance(entry, list) else str if isinstance(entry, tuple) else ()):
        # What a second pair of quotes made a string has its brackets.
        remedy = str(value) if str(value).startswith(('[', '(')) else f'[{value}]'
        raise _misfit(value, entry, place, f'{place}={remedy}')
    return value


def _adapt_leaves(value: Any, entry: Any, place: str) -> Any:
    """Convert a value, or everything in a list, to the one type that stood there."""
    if isinstance(value, (list, tuple)):
        return type(value)(_adapt_leaves(item, entry, place) for item in value)
    kinds = _kinds(entry)
    if kinds and all(type(value) in _REFUSED_FOR.get(kind, ()) for kind in kinds):
        raise _misfit(value, entry, place, _remedy(kinds, entry, place))
    if kinds == {float} and type(value) is int:
        return float(value)
    return int(value) if kinds == {int} and type(value) is float and value.is_integer() else value


def _remedy(kinds: set[type], entry: Any, place: str) -> str:
    if kinds == {dict}:
        return f'{place}.NAME=VALUE' if isinstance(entry, Mapping) else f"{place}=[{{'name': value}}]"
    kind = 'True or False' if kinds == {bool} else 'a number'
    return f'{kind} for each item, in brackets' if isinstance(entry, (list, tuple)) else kind


def _misfit(value: Any, entry: Any, place: str, remedy: str) -> _RefusedError:
    stood = f'{_NAMES.get(type(entry), "a dict")} ({reprlib.repr(entry)})'
    return _RefusedError(f'{place} is {stood}, and {value!r} is {_NAMES[type(value)]}: write {remedy}')
