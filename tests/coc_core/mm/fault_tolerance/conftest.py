"""Trainings in this process: see survival.py."""

import os
import signal

import pytest
import survival


@pytest.fixture(scope='session')
def _project(tmp_path_factory):
    folder = tmp_path_factory.mktemp('survival')
    survival.write_images(folder)
    project = survival.Project(folder)
    project.config('base')
    return project


@pytest.fixture
def project(_project, monkeypatch):
    monkeypatch.chdir(_project.folder)
    return _project


@pytest.fixture(scope='session')
def differences():
    return survival.differences


@pytest.fixture(scope='session')
def by_iteration():
    return survival.BY_ITERATION


@pytest.fixture(scope='session')
def cut():
    """What a step does to be the last of a run."""
    return lambda runner: os.kill(os.getpid(), signal.SIGTERM)
