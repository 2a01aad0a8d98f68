"""Servers in processes of their own: of the scripted stand-in, and of the demo."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]


@contextlib.contextmanager
def served(*arguments: str) -> Iterator[str]:
    """The URL of a server that lives as long as its standard input."""
    paths = os.pathsep.join([str(TESTS), str(TESTS / "clients")])
    command = [sys.executable, "-m", "clients.serve", *arguments]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": paths}
    ) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert url, "the server did not start"
        yield url


@pytest.fixture(scope="session")
def stand_in_url():
    with served("stand-in") as url:
        yield url


@pytest.fixture(scope="session")
def demo_url():
    with served("demo") as url:
        yield url
