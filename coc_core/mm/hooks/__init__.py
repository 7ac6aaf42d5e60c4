"""Hooks of mmengine: checkpoints of every origin, clusters while they form, a progress bar."""
