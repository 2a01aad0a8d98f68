"""A new kind of drafter takes one file and one entry in the registry, and every committed row is reported to it."""

from __future__ import annotations

import numpy as np
import pytest
from drafters.recall import RECALL, RecallDrafter
from tiny_checkpoints import VOCAB

from outrider import LLM, SamplingParams
from outrider.drafters import registry
from outrider.drafters.protocol import Drafter
from outrider.engine.target import chain


@pytest.fixture(scope="module")
def llm(tiny):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "KINDS", [RECALL, *registry.KINDS])
        return LLM(tiny("gemma3").gguf, threads=2, context=256)


@pytest.fixture
def recall(llm):
    drafter = llm.parts.engine.planner.drafters[0]
    assert isinstance(drafter, RecallDrafter)
    return drafter


def prompts():
    rng = np.random.default_rng(3)
    motifs = [[int(token) for token in rng.integers(3, VOCAB, size)] for size in (3, 5, 7)]
    return [(motif * 12)[:length] for motif, length in zip(motifs, (9, 40, 63), strict=True)]


@pytest.mark.parametrize("temperature", [0.0, 0.9])
@pytest.mark.parametrize("draft", ["auto", 3])
def test_it_drafts_and_changes_nothing(llm, temperature, draft):
    settings = {"max_tokens": 40, "temperature": temperature, "seed": 5, "ignore_end": True}
    drafted = llm.generate(prompts(), SamplingParams(**settings, draft=draft))
    plain = llm.generate(prompts(), SamplingParams(**settings, draft="off"))
    assert [out.token_ids for out in drafted] == [out.token_ids for out in plain]
    if draft != "auto":
        assert all(out.stats.drafted_by_source["recall"] > 5 for out in drafted)


def test_every_committed_row_is_reported_with_its_hidden_state(llm, recall, monkeypatch):
    """Prompt rows, accepted rows and rows of a prefix that the cache holds, in order and without a gap."""
    monkeypatch.setattr(llm.parts.engine, "chunk", 16)
    for _ in range(2):  # the second time, the prefix cache holds the prompts
        requests = [
            llm.parts.engine.add(list(prompt), SamplingParams(max_tokens=30, draft=4, ignore_end=True))
            for prompt in prompts()
        ]
        rows = {request.number: recall.rows[request.number] for request in requests}
        while not all(request.ended for request in requests):
            llm.parts.engine.step()
        for request in requests:
            reported = rows[request.number]
            tokens = np.concatenate([part.tokens for part in reported])
            assert [part.first for part in reported] == [0, *np.cumsum([len(part.tokens) for part in reported])[:-1]]
            assert list(tokens) == request.tokens[: len(tokens)]
            assert len(tokens) >= len(request.tokens) - 1 - 4  # all but the bonus token and what the end cut off
            compare_with_one_pass(llm, tokens, np.concatenate([part.hidden for part in reported]))
    assert not recall.rows, "a sequence that ended is forgotten"


def compare_with_one_pass(llm, tokens, hidden):
    """The hidden states are those of all tokens in one pass, to the bit."""
    llm.parts.target.run([chain(llm.parts.caches.new(), [int(token) for token in tokens], list(range(len(tokens))))])
    assert np.array_equal(llm.parts.target.hidden(len(tokens)), hidden)


def test_it_is_reported_as_a_source(llm):
    assert llm.parts.engine.planner.sources == ["recall", "prediction", "grammar", "lookup"]


def test_without_need_no_prompt_row_has_an_output(llm, recall, monkeypatch):
    """Hidden states of all rows are computed for those that require them alone."""
    monkeypatch.setattr(type(recall), "hidden", "last")
    outputs, run = [], llm.parts.target.run
    monkeypatch.setattr(
        llm.parts.target,
        "run",
        lambda rows, **options: outputs.append(sum(len(r.outputs) for r in rows)) or run(rows, **options),
    )
    request = llm.parts.engine.add(prompts()[1], SamplingParams(max_tokens=1, cache_prompt=False))
    rows = recall.rows[request.number]
    llm.parts.engine.step()
    assert request.ended
    assert outputs == [1]
    assert [(len(part.tokens), len(part.hidden)) for part in rows] == [(40, 1)]


def test_a_drafter_that_cannot_propose_is_not_made():
    class Silent(Drafter):
        name = "silent"

    with pytest.raises(TypeError, match=r"abstract method .*propose"):
        Silent()
