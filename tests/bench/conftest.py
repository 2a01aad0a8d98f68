"""Fixtures of the command line, on a machine of known speed."""

from __future__ import annotations

import pytest
from command_line import call, fake

from outrider.bench import curves

__all__ = ["call", "fake"]


@pytest.fixture(autouse=True)
def known_limit(monkeypatch):
    monkeypatch.setattr(curves, "memory_limit", lambda _llm: curves.MemoryLimit(2e10, 200_000_000))
