"""The page at `/` of a server on a tiny model, in a real browser."""

from __future__ import annotations

import re

import pytest
from browser import chromium

from outrider import SamplingParams
from outrider.drafters.protocol import Drafter

PROMPT = "abab" * 10


@pytest.fixture(scope="module")
def browser():
    with chromium() as found:
        yield found


@pytest.fixture
def open_page(browser, url):
    """Opens the page of a server in a window of its own; no page may have had trouble or asked anybody else."""
    contexts, trouble, asked = [], [], []

    def open_at(base=url, *, ready=True, **options):
        context = browser.new_context(**{"viewport": {"width": 1200, "height": 900}, **options})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(20_000)
        # Chromium reports an answer of 400 or 401 as trouble; to the page it is a thing to show.
        page.on("console", lambda said: said.type == "error" and _is_trouble(said.text) and trouble.append(said.text))
        page.on("pageerror", lambda error: trouble.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(f"{base}/")
        if ready:
            page.wait_for_selector("#run:enabled")
        return page

    yield open_at
    for context in contexts:
        context.close()
    assert not trouble
    assert all(re.match(r"http://127\.0\.0\.1:\d+/|(data|blob):", address) for address in asked), asked


def _is_trouble(text):
    return not re.match(r"Failed to load resource: (the server responded with a status of 4\d\d|net::ERR_FAILED)", text)


class Scripted(Drafter):
    """Adds to every draft the token of the answer that comes next, and one that does not, if it is `last`."""

    def __init__(self, name, answer, last=False):
        self.name, self._answer, self._last = name, answer, last
        self._prompts = {}

    def open(self, sequence):
        self._prompts[sequence.number] = len(sequence.tokens)

    def propose(self, asks):
        for ask in asks:
            coming = self._answer[len(ask.sequence.tokens) - self._prompts[ask.sequence.number] :]
            for wrong in range(1 + self._last):
                depth = len(ask.draft)
                if depth < min(ask.budget, len(coming)):
                    ask.draft.add(depth - 1, coming[depth] ^ wrong, 0.5, self.name)

    def close(self, sequence):
        self._prompts.pop(sequence.number, None)


@pytest.fixture
def drafted(served_llm, url, monkeypatch):  # noqa: ARG001
    """Drafts for PROMPT that no measurement sizes: two right tokens, each from another source, and a wrong one."""
    out = served_llm.generate(PROMPT, SamplingParams(max_tokens=60, draft="off"))[0]
    planner = served_llm.parts.engine.planner
    names = ("mtp", "lookup")
    drafters = [Scripted(name, out.token_ids, last=name == "lookup") for name in names]
    monkeypatch.setattr(planner, "drafters", drafters)
    monkeypatch.setattr(planner, "_keep_worthwhile", lambda *_: None)
