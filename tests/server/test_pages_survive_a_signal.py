"""A server that a signal ends leaves its pages to the next one."""

from __future__ import annotations

import signal
import subprocess
import sys
from contextlib import contextmanager

import httpx
import pytest
from server.served_checkpoint import save_served

from outrider.backends.cpu import PAGE_POSITIONS

PROMPT = "Once upon a time there was a page. " * 12


@contextmanager
def serving(model, folder):
    """The command, until SIGTERM: a function that completes PROMPT."""
    options = ["--drafter", "off", "--port", "0", "--context", "1024", "--threads", "1", "--prefix-cache-dir", folder]
    command = [sys.executable, "-c", "from outrider.cli import main; main()", "serve", model, *map(str, options)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        try:
            line = next(line for line in server.stderr if " at http://" in line)
            url = line.split(" at ")[1].split("/v1")[0]
            asked = {"prompt": PROMPT, "max_tokens": 8, "temperature": 0}
            yield lambda: httpx.post(f"{url}/v1/completions", json=asked, timeout=60).json()
        finally:
            server.send_signal(signal.SIGTERM)
            log = server.stderr.read()
    assert (server.returncode, "Traceback" in log) == (0, False), log


@pytest.mark.slow
def test_the_next_server_reads_what_the_last_one_computed(tmp_path):
    model, _ = save_served(tmp_path)
    with serving(model, tmp_path / "pages") as complete:
        first = complete()
    with serving(model, tmp_path / "pages") as complete:
        second = complete()
    tokens = first["usage"]["prompt_tokens"]
    assert tokens > 2 * PAGE_POSITIONS
    assert first["usage"]["prompt_tokens_details"]["cached_tokens"] == 0
    assert second["usage"]["prompt_tokens_details"]["cached_tokens"] == tokens - 1
    assert second["choices"] == first["choices"]
