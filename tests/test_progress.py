"""Loading shows a bar where a person sees one, and nowhere else."""

from __future__ import annotations

import io
import sys

import pytest

from outrider import LLM
from outrider.progress import loading_bar


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(("given", "shown"), [(None, True), (True, True), (False, False)])
def test_on_a_terminal(monkeypatch, given, shown):
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("TERM", "xterm")
    with loading_bar(given) as advance:
        advance("packing weights", 0.5)
    assert ("packing weights" in sys.stderr.getvalue()) == shown


def test_elsewhere_there_is_none(monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with loading_bar(None) as advance:
        advance("packing weights", 0.5)
    assert sys.stderr.getvalue() == ""


def test_the_callers_own_function_is_called_instead(tiny, monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    seen = []
    LLM(tiny("gemma3").gguf, threads=1, context=64, progress=lambda what, fraction: seen.append((what, fraction)))
    assert ("packing weights", 1.0) in seen
    assert all(0 <= fraction <= 1 for _, fraction in seen)
    assert sys.stderr.getvalue() == ""
