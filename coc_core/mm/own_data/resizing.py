"""Pipelines for another image size, so that a config says its size once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_SIZES = frozenset({'scale', 'crop_size', 'size', 'num_points'})


def resized(pipeline: Any, size: int, new_size: int) -> Any:
    """Return a pipeline with all its sizes in proportion: a base's for ``size``, for a config's ``new_size``.

    Sizes are the whole numbers of ``scale``, ``crop_size``, ``size`` and ``num_points`` in any step; a fraction, such
    as the range of a random scale, stays.

    Args:
        pipeline: The steps, as a config has them.
        size: The size that they are written for, of an image's side or a cloud's points.
        new_size: The one that is wanted.
    """
    if isinstance(pipeline, Mapping):
        return {
            key: _scaled(value, size, new_size) if key in _SIZES else resized(value, size, new_size)
            for key, value in pipeline.items()
        }
    if isinstance(pipeline, (list, tuple)):
        return type(pipeline)(resized(step, size, new_size) for step in pipeline)
    return pipeline


def _scaled(value: Any, size: int, new_size: int) -> Any:
    if isinstance(value, (list, tuple)):
        return type(value)(_scaled(item, size, new_size) for item in value)
    # A whole number: True is none, and a fraction is a ratio.
    return round(value * new_size / size) if type(value) is int else value
