"""Two replicas of the demo, started as a person starts them."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time

import openai
import psutil
import pytest

SECONDS = 600.0
"""Nothing takes so long on a machine that others use too."""


class Replicas:
    """`outrider serve demo --replicas 2`, one request at a time in each."""

    def __init__(self) -> None:
        command = "from outrider.cli import main; main()"
        options = ("--replicas", "2", "--threads", "1", "--running", "1", "--context", "2048", "--port", "0")
        patience = ("--queue-timeout", "0", "--drain-timeout", str(SECONDS))
        self.process = subprocess.Popen(
            [sys.executable, "-c", command, "serve", "demo", *options, *patience],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"},
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        self.lines += self.process.stdout

    def ready(self) -> bool:
        """Whether they answer."""
        if self.process.poll() is not None:
            self._reader.join()
        return any("Ctrl-C" in line for line in self.lines)

    def url(self) -> str:
        """Where they listen."""
        found = re.search(r"demo at (http://\S+)/v1, replicas: 2", "".join(self.lines))
        assert found, "".join(self.lines)
        return found[1]

    def models(self) -> list[psutil.Process]:
        """The processes with a model."""
        children = psutil.Process(self.process.pid).children(recursive=True)
        return [child for child in children if _is_replica(child)]

    def stop(self) -> int:
        """Its exit status."""
        children = psutil.Process(self.process.pid).children(recursive=True) if self.process.poll() is None else []
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(SECONDS)
        finally:
            self.process.kill()
            for child in children:
                if child.is_running():
                    child.kill()
            self._reader.join()


def _is_replica(process: psutil.Process) -> bool:
    try:
        return "ServeReplica:outrider:Model" in " ".join(process.cmdline())
    except psutil.Error:
        return False


def wait_until(condition, seconds: float = SECONDS) -> None:
    """Until a condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.1)


def started(attempts: int) -> Replicas:
    """Ray gives itself 30 s to start, and its proxies 60 s, in which a busy machine may not do it."""
    both = Replicas()
    wait_until(lambda: both.ready() or both.process.poll() is not None)
    slow = re.search("Ray cannot be started|proxies not available", "".join(both.lines))
    return started(attempts - 1) if not both.ready() and attempts > 1 and slow else both


@pytest.fixture(scope="session")
def replicas():
    both = started(attempts=3)
    try:
        both.url()
        yield both
    finally:
        status = both.stop()
    assert status == 0, both.lines[-20:]


@pytest.fixture(scope="session")
def url(replicas):
    return replicas.url()


@pytest.fixture
def client(url):
    return openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=SECONDS)
