"""Takes a picture of the page of `outrider serve demo`, with an answer that was drafted beside one that was not:

PYTHONPATH=tests:tests/server/page python release/photograph_page.py OUT.webp PROMPT TOKENS
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from browser import chromium
from page_actions import ask
from PIL import Image

WIDTH, HEIGHT = 1000, 1170


@contextlib.contextmanager
def served() -> Iterator[str]:
    """The address of the page of a server on the demo model."""
    command = [Path(sys.executable).with_name("outrider"), "serve", "demo", "--port", "0"]
    environment = os.environ | {"COLUMNS": "200"}  # so that no line is wrapped
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as server:
        assert server.stderr is not None
        try:
            lines = iter(server.stderr.readline, "")
            found = (re.search(r"page to try it at (\S+)", line) for line in lines)
            yield next(match[1] for match in found if match)
        finally:
            server.terminate()


def photograph(file: Path, prompt: str, tokens: int) -> None:
    """Writes the picture of a greedy answer of so many tokens."""
    with served() as url, chromium() as browser:
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, device_scale_factor=1.5)
        page.goto(url)
        page.wait_for_selector("#run:enabled")
        page.set_default_timeout(120_000)
        ask(page, prompt, tokens=tokens, drafting="both")
        Image.open(io.BytesIO(page.screenshot())).save(file, lossless=True)


if __name__ == "__main__":
    photograph(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
