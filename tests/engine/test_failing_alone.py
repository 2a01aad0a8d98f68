"""What fails for one request ends that request, wherever it fails; the others get the tokens they would have had."""

from __future__ import annotations

import pytest
from tiny_checkpoints import VOCAB

from outrider import LLM, SamplingParams
from outrider.drafters.protocol import Drafter
from outrider.drafters.tree import ROOT

PROMPTS = [[5, 6, 7] * 6, [8, 9] * 9, [3, 11, 12, 13] * 4]
GUILTY = 1
PARAMS = SamplingParams(max_tokens=25, draft=4, ignore_end=True)


@pytest.fixture(scope="module")
def llm(tiny):
    return LLM(tiny("gemma3").gguf, threads=2, context=128, prefix_cache_bytes=0)


@pytest.fixture(scope="module")
def expected(llm):
    return [llm.generate([prompt], PARAMS)[0].token_ids for prompt in PROMPTS]


class Failing(Drafter):
    """Proposes a token for everyone, and fails for one sequence in the stage that `at` names."""

    name = "failing"

    def __init__(self, at):
        self.at, self.guilty, self.calls = at, None, 0

    def _maybe(self, stage, sequence):
        if stage == self.at and sequence is self.guilty and len(sequence.tokens) > len(PROMPTS[GUILTY]) + 5:
            self.calls += 1
            raise RuntimeError("broken drafter")

    def propose(self, asks):
        for ask in asks:
            self._maybe("propose", ask.sequence)
            ask.draft.add(ROOT, ask.sequence.tokens[-1] % VOCAB, 0.5, self.name)

    def observe(self, sequence, rows):  # noqa: ARG002
        self._maybe("observe", sequence)


def run(llm, guilty_of=lambda _request: None):
    requests = [llm.parts.engine.add(list(prompt), PARAMS) for prompt in PROMPTS]
    guilty_of(requests[GUILTY])
    while not all(request.ended for request in requests):
        llm.parts.engine.step()
    assert llm.parts.caches.in_use == 0
    return requests


def check(requests, expected, message):
    for number, (request, tokens) in enumerate(zip(requests, expected, strict=True)):
        if number == GUILTY:
            with pytest.raises(RuntimeError, match=message):
                request.output()
        else:
            assert request.output().token_ids == tokens


@pytest.mark.parametrize("stage", ["propose", "observe"])
def test_a_drafter_that_fails_for_one_sequence(llm, expected, monkeypatch, stage):
    drafter = Failing(stage)
    monkeypatch.setattr(llm.parts.engine.planner, "drafters", [drafter, *llm.parts.engine.planner.drafters])
    check(run(llm, lambda request: setattr(drafter, "guilty", request.state)), expected, "broken drafter")
    assert drafter.calls


def test_a_pass_that_fails_because_of_one_request(llm, expected, monkeypatch):
    target_run, guilty = llm.parts.target.run, []

    def failing(sequences, *, logits=False):
        if any(rows.cache is cache and cache.length > 22 for rows in sequences for cache in guilty):
            raise RuntimeError("broken rows")
        return target_run(sequences, logits=logits)

    monkeypatch.setattr(llm.parts.target, "run", failing)
    check(run(llm, lambda request: guilty.append(request.sequence.cache)), expected, "broken rows")


def test_a_choice_that_fails(llm, expected, monkeypatch):
    def spoil(request):
        def choose(*_):
            raise RuntimeError("broken choice")

        monkeypatch.setattr(request.chooser, "choose", choose)

    check(run(llm, spoil), expected, "broken choice")
