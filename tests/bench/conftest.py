"""Fixtures of the command line, on a machine of known speed."""

from __future__ import annotations

import pytest
from command_line import call, fake

from outrider.bench import comparer, curves

__all__ = ["call", "fake"]


class KnownForecast:
    """Of passes that take 12 ms each."""

    def __init__(self, _llm, _context):
        pass

    def seconds(self, rows):
        return [0.012] * len(rows)


@pytest.fixture
def known_machine(monkeypatch):
    monkeypatch.setattr(curves, "memory_limit", lambda _llm: curves.MemoryLimit(2e10, 200_000_000))
    monkeypatch.setattr(curves, "Forecast", KnownForecast)
    monkeypatch.setattr(comparer, "perf_counter", lambda: 0.0)  # and a gauge takes no time


@pytest.fixture(autouse=True)
def fake_needs_a_known_machine(request):
    if "fake" in request.fixturenames:
        request.getfixturevalue("known_machine")
