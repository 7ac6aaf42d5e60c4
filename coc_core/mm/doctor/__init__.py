"""Tells what of an environment is wrong, and the command that mends it: ``tools/doctor.py``.

Nothing here needs torch or an mm* package when it is imported: what a probe looks at is imported by the probe.
"""
