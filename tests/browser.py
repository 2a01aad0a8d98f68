"""A headless Chromium, for tests of pages."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """The system's Chromium or Chrome, else the one that `playwright install chromium` brought. Without one, the test
    is skipped: a browser is no Python package, so `make test` cannot bring it; `.ci/run` does where it can."""
    with sync_playwright() as driver:
        found = [path for name in _NAMES if (path := shutil.which(name))]
        program = Path(found[0] if found else driver.chromium.executable_path)
        if not program.exists():
            pytest.skip("needs a browser: apt install chromium, or playwright install chromium")
        sandbox = os.geteuid() != 0  # Chromium's sandbox refuses to work for root
        browser = driver.chromium.launch(executable_path=program, chromium_sandbox=sandbox)
        yield browser
        browser.close()
