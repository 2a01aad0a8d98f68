"""A long prompt shows how far it is, on a terminal, until the answer begins."""

from __future__ import annotations

import io
import sys

import pytest
from tiny_checkpoints import VOCAB

from outrider import LLM, SamplingParams
from outrider.cli import prefill
from outrider.cli.prefill import showing_prefill
from outrider.engine.outputs import Piece

CLEAR_LINE = "\033[2K"


class Terminal(io.StringIO):
    def isatty(self):
        return True


def on_a_terminal(monkeypatch):
    shown = Terminal()
    monkeypatch.setattr(sys, "stderr", shown)
    monkeypatch.setenv("TERM", "xterm")
    return shown


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass with each piece."""
    now = [0.0]
    monkeypatch.setattr(prefill.time, "monotonic", lambda: now[0])
    return now


def pieces(clock, seconds, fractions=(0.25, 0.5, 0.75)):
    for fraction in fractions:
        clock[0] += seconds
        yield Piece("", (), (), (), prefilled=fraction)
    yield Piece("a", (1,), (None,), (None,))
    yield Piece("b", (2,), (None,), (None,))


def test_a_long_prompt_has_a_bar_that_is_gone_when_the_answer_begins(monkeypatch, clock):
    terminal = on_a_terminal(monkeypatch)
    at_the_answer = None
    for piece in showing_prefill(pieces(clock, 1.5)):
        if piece.text == "a":
            at_the_answer = terminal.getvalue()
    assert at_the_answer is not None
    assert "prefill" in at_the_answer
    assert "75%" in at_the_answer
    assert at_the_answer.rsplit("75%", 1)[1].count(CLEAR_LINE) == 1
    assert terminal.getvalue() == at_the_answer


def test_a_short_one_has_none(monkeypatch, clock):
    terminal = on_a_terminal(monkeypatch)
    assert len(list(showing_prefill(pieces(clock, 0.5)))) == 5
    assert terminal.getvalue() == ""


def test_nor_has_a_long_one_elsewhere(monkeypatch, clock):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert len(list(showing_prefill(pieces(clock, 10)))) == 5
    assert sys.stderr.getvalue() == ""


def test_the_bar_goes_when_the_prompt_is_stopped(monkeypatch, clock):
    terminal = on_a_terminal(monkeypatch)
    shown = showing_prefill(pieces(clock, 10))
    next(shown)
    assert "prefill" in terminal.getvalue()
    shown.close()
    assert CLEAR_LINE in terminal.getvalue().rsplit("prefill", 1)[1]


def test_pieces_tell_how_much_of_the_prompt_is_computed(tiny):
    with LLM(tiny("gemma3").gguf, threads=1, context=1024, prefix_cache_bytes=0) as llm:
        prompt = [3 + n % (VOCAB - 3) for n in range(600)]
        found = [(piece.prefilled, piece.token_ids) for piece in llm.stream(prompt, SamplingParams(max_tokens=3))]
    computed = [fraction for fraction, tokens in found if not tokens]
    assert computed == [256 / 600, 512 / 600]
    assert {fraction for fraction, tokens in found if tokens} == {1.0}
