"""Servers to measure."""

from __future__ import annotations

import pytest
from command_line import call
from fake_endpoint import fake_endpoint

__all__ = ["call"]


@pytest.fixture
def server():
    """One that does as it is told."""
    with fake_endpoint() as running:
        yield running


@pytest.fixture(autouse=True)
def no_key(monkeypatch):
    """None of whoever runs the tests."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
