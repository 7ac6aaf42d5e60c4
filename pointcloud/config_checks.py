"""What of a config would have clouds measured otherwise than they are learned."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

from mmengine.config import Config

from coc_core.errors import UserError
from coc_core.mm.data_checks.inspection import innermost_datasets, transforms_of
from coc_core.mm.data_checks.problems import Problem
from pointcloud.variants import PointMLPConfig, get_config

NORMALIZES = 'NormalizePoints'


def config_problems(cfg: Config, phase: str) -> Iterator[Problem]:
    """Yield where a phase takes clouds otherwise than training does, or fewer points of them than the model asks for.

    Args:
        cfg: The config.
        phase: Out of train, val, test.
    """
    here = _pipeline(cfg, phase)
    taken = points_taken(here)
    anchors = _first_anchors((cfg.get('model') or {}).get('backbone'))
    if taken and anchors > taken:
        what = f'but the model keeps {anchors} anchors of them, the first point again and again: set anchors[0] to less'
        yield Problem(f'The {phase} pipeline', f'takes {taken} points of a cloud, {what}', 'warning')
    trained = _pipeline(cfg, 'train')
    if phase == 'train' or not trained:
        return
    learned = points_taken(trained)
    if taken and learned and taken != learned:
        what = (
            f'takes {taken} points of a cloud, but the train pipeline {learned}: a model is measured as it has learned'
        )
        yield Problem(f'The {phase} pipeline', f'{what} where they are equal', 'warning')
    if normalizes(here) != normalizes(trained):
        has, lacks = (phase, 'train') if normalizes(here) else ('train', phase)
        what = f'has {NORMALIZES}, but the {lacks} pipeline has not: give both the same place and scale of clouds'
        yield Problem(f'The {has} pipeline', what, 'warning')


def points_taken(pipeline: Any) -> int:
    """Return the most points that a step of a pipeline takes of a cloud; 0 where it takes all."""
    return max((step.get('num_points') or 0 for step in transforms_of(pipeline)), default=0)


def normalizes(pipeline: Any) -> bool:
    """Whether a pipeline moves clouds to the origin and scales them."""
    return any(str(step.get('type')).rpartition('.')[2] == NORMALIZES for step in transforms_of(pipeline))


def _pipeline(cfg: Config, phase: str) -> Any:
    return next((dataset.get('pipeline') for dataset in innermost_datasets(cfg, phase)), None)


def _first_anchors(backbone: Any) -> int:
    """Return how many anchors the first stage of a config's trunk keeps; 0 where that is not known."""
    if not isinstance(backbone, Mapping):
        return 0
    known = {field.name for field in fields(PointMLPConfig)}
    try:
        config = get_config(backbone['arch']).override(**{k: v for k, v in backbone.items() if k in known})
    # The model says what is wrong with them when it is built.
    except (KeyError, TypeError, UserError):
        return 0
    return config.anchors[0]
