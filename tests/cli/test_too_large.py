"""Commands refuse a model that does not fit into memory before they read it."""

from __future__ import annotations

from outrider.machine import Memory


def test_nothing_is_read_of_a_model_that_does_not_fit(tiny, call, monkeypatch):
    monkeypatch.setattr("outrider.loading.memory", lambda: Memory(1 << 16, 0, contained=True))
    monkeypatch.setattr("outrider.loading.open_weights", None)
    ran = call("run", str(tiny("gemma3").gguf), "Hi")
    assert (ran.code, ran.out) == (2, "")
    assert "65.5 kB of the container's limit are available" in ran.err


def test_inspect_says_it_before(tiny, call, monkeypatch):
    monkeypatch.setattr("outrider.machine.memory", lambda: Memory(1 << 16, 0, contained=True))
    said = call("inspect", str(tiny("gemma3").folder)).out
    assert "65.5 kB of the container's limit" in said
    assert "does not fit" in said
