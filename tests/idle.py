"""Waiting for a model whose requests end in a thread of its own."""

from __future__ import annotations

import time

from outrider import LLM


def wait_until_idle(llm: LLM) -> None:
    """Until no request holds a sequence. Fails after some seconds."""
    until = time.monotonic() + 20
    while llm.parts.caches.in_use:
        assert time.monotonic() < until, f"{llm.parts.caches.in_use} sequences are still in use"
        time.sleep(0.002)
