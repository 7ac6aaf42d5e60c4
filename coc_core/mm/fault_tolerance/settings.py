"""What a config says by dotted keys, so that two runs can name what they have not in common."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

# What changes how fast a run is and what it says, and no result; where data lies, its samples tell.
_NO_RESULT = re.compile(
    r'(env_cfg|visualizer|vis_backends|log_level|log_processor|launcher|work_dir|default_hooks\.(logger|timer))(\.|$)'
    r'|.*\.(num_workers|persistent_workers|pin_memory|prefetch_factor|timeout|data_root)$'
)
_MOST_SHOWN = 5


def settings_of(config: Mapping[str, Any]) -> dict[str, str]:
    """Return what a config says as text, by dotted keys, but for what changes no result."""
    return {key: text for key, text in _leaves(config, '') if not _NO_RESULT.match(key)}


def _leaves(value: Any, place: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _leaves(inner, f'{place}.{key}' if place else str(key))
    elif isinstance(value, (list, tuple)) and any(isinstance(item, (Mapping, list, tuple)) for item in value):
        yield from _leaves(dict(enumerate(value)), place)
    else:
        yield place, value.__qualname__ if hasattr(value, '__qualname__') else repr(value)


def changes(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Return what differs between the settings of two runs, as parts of a sentence."""
    keys = [key for key in dict.fromkeys((*now, *before)) if before.get(key) != now.get(key)]
    return [f'{key} is {now.get(key, "not set")} now, {before.get(key, "not set")} before' for key in keys]


def shown(found: list[str]) -> str:
    """Return changes as part of a sentence, and of many the first."""
    more = f'; and {len(found) - _MOST_SHOWN} more' if len(found) > _MOST_SHOWN else ''
    return '; '.join(found[:_MOST_SHOWN]) + more
