"""Checkpoints of every origin: `load` takes one over completely or says why not, `convert` writes another form."""

from coc_core.checkpoints.conversion import FORMS, convert
from coc_core.checkpoints.loading import Report, fit, load
from coc_core.checkpoints.official import from_official, to_official
from coc_core.checkpoints.reading import CheckpointError, read

__all__ = ['FORMS', 'CheckpointError', 'Report', 'convert', 'fit', 'from_official', 'load', 'read', 'to_official']
