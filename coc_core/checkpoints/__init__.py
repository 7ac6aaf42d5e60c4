"""Checkpoints of every origin: `load` takes one over completely or says why not, `convert` writes another form."""

from coc_core.checkpoints.conversion import convert, forms, from_official, to_official
from coc_core.checkpoints.loading import Report, load, load_content
from coc_core.checkpoints.reading import CheckpointError, read

__all__ = [
    'CheckpointError',
    'Report',
    'convert',
    'forms',
    'from_official',
    'load',
    'load_content',
    'read',
    'to_official',
]
