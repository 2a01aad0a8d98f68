"""A headless Chromium, for tests of pages."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """The system's Chromium or Chrome, else the one that `playwright install chromium` brought; without one, the test
    is skipped."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install 'outrider[test]'")
    with playwright.sync_playwright() as driver:
        found = [path for name in _NAMES if (path := shutil.which(name))]
        program = Path(found[0] if found else driver.chromium.executable_path)
        if not program.exists():
            pytest.skip("needs a browser: apt install chromium, or playwright install chromium")
        sandbox = os.geteuid() != 0  # Chromium's sandbox refuses to work for root
        browser = driver.chromium.launch(executable_path=program, chromium_sandbox=sandbox)
        yield browser
        browser.close()
