"""How the models of each task name what stands around the backbone, for their checkpoints."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Layout:
    """The whole models of one task.

    Attributes:
        task: Its name, as messages have it.
        heads: A regular expression of the names that only this task's models have, beside those under ``backbone.``.
        form: The name by which `coc_core.checkpoints.convert` writes it: that of the library.
        published: What follows "published TASK checkpoint" in messages.
        dense: Whether the backbone's outputs have norms of their own; else it is a classifier.
        classifier: What the library calls a classifier's ``head.``.
    """

    task: str
    heads: str
    form: str
    published: str = ''
    dense: bool = True
    classifier: str = ''

    def has(self, name: str) -> bool:
        """Whether a name is of a head of this task."""
        return re.match(self.heads, name) is not None


DETECTION = Layout('detection', r'(rpn_head|roi_head|bbox_head)\.', 'mmdet', ' of mmdet 2.x')
SEGMENTATION = Layout('segmentation', r'(decode_head|auxiliary_head)\.', 'mmseg', ' of mmseg 0.x')
CLASSIFICATION = Layout('classification', r'head\.fc\.', 'mmpretrain', dense=False, classifier='head.fc.')

LAYOUTS: dict[str, Layout] = {layout.task: layout for layout in (DETECTION, SEGMENTATION, CLASSIFICATION)}


def register_layout(layout: Layout) -> None:
    """Make checkpoints of a task known."""
    LAYOUTS[layout.task] = layout
