"""The browser that the tests of pages drive."""

import importlib.util
from contextlib import contextmanager
from pathlib import Path

import pytest

FLAGS = (
    '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
    '--disable-component-update', '--disable-sync',
)  # fmt: skip

_TOOL = Path(__file__).parents[2] / 'tools' / 'dev' / 'setup_browser.py'
_spec = importlib.util.spec_from_file_location('setup_browser', _TOOL)
setup_browser = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(setup_browser)


@contextmanager
def open_browser(profile, **options):
    """Open a Chromium with a profile in a folder and Playwright's options of a context; skip the test without one."""
    path = setup_browser.find_browser()
    if path is None:
        pytest.skip('there is no Chromium (Debian: apt-get install chromium)')
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            profile, executable_path=path, headless=True, args=list(FLAGS), **options
        )
        context.set_default_timeout(120_000)
        yield context
        context.close()
