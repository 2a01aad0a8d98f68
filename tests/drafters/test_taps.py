"""A drafter that taps layers gets their hidden states of every committed row; without one, nothing is recorded."""

from __future__ import annotations

import numpy as np
import pytest
from drafters.recall import RecallDrafter
from tiny_checkpoints import VOCAB, WINDOW

from outrider import LLM, SamplingParams
from outrider.backends.reference import ReferenceCache, ReferenceExecutor
from outrider.checkpoints import open_checkpoint
from outrider.drafters import registry
from outrider.drafters.tree import ROOT
from outrider.engine.target import chain
from outrider.models.gemma import kv_layers, record_gemma, tap

CLOSE = {"rtol": 1e-3, "atol": 1e-3}
SETTINGS = {"max_tokens": 24, "ignore_end": True}


class TappingDrafter(RecallDrafter):
    """Proposes `answer`, which a test has found out, and beside each token a wrong one."""

    name = "tapping"
    hidden = "last"
    answer: tuple[int, ...] = ()

    def propose(self, asks):
        for ask in asks:
            parent, done = ROOT, len(ask.sequence.tokens)
            for token in self.answer[done : done + ask.budget // 2]:
                ask.draft.add(parent, (token + 1) % VOCAB, 0.9, self.name)
                parent = ask.draft.add(parent, token, 0.9, self.name)


def layers(config, drafter=None):
    assert drafter is None, "this kind has no checkpoint"
    return 1, len(config.layers) - 1


@pytest.fixture(scope="module", params=["gemma3", "gemma4-e2b"])
def checkpoint(request, tiny):
    return open_checkpoint(tiny(request.param).gguf)


@pytest.fixture(scope="module")
def llm(checkpoint):
    kind = registry.Kind("tapping", lambda _settings: TappingDrafter(), taps=layers)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "KINDS", [kind])
        return LLM(checkpoint.path, threads=2, context=256, kv_cache_dtype="float32", drafter=None)


def reported(llm, prompt, **settings):
    """A finished request, and what was reported of its rows."""
    (drafter,) = llm.parts.engine.planner.drafters
    request = llm.parts.engine.add(list(prompt), SamplingParams(**SETTINGS | settings))
    rows = drafter.rows[request.number]
    while not request.ended:
        llm.parts.engine.step()
    return request, rows


def reference_taps(checkpoint, tokens):
    """Layer -> (tokens, hidden_size): the numpy executor's hidden states after it."""
    recorded = record_gemma(checkpoint.config, checkpoint.tensors, taps=layers(checkpoint.config))
    executor, count = ReferenceExecutor(recorded, checkpoint.tensors), len(tokens)
    rows, cache = np.arange(count, dtype=np.int32), ReferenceCache(kv_layers(checkpoint.config))
    executor.run(np.array(tokens, np.int32), np.zeros(count, np.int32), rows - 1, rows[-1:], [cache])
    return {layer: executor.read(tap(layer), count) for layer in layers(checkpoint.config)}


def test_taps_of_prompt_chunks_tree_rows_and_behind_a_prefix(llm, checkpoint, monkeypatch):
    monkeypatch.setattr(llm.parts.engine, "chunk", 16)
    (drafter,) = llm.parts.engine.planner.drafters
    prompt = [int(token) for token in np.random.default_rng(3).integers(3, VOCAB, 2 * WINDOW + 9)]
    plain, _ = reported(llm, prompt, draft="off", cache_prompt=False)
    drafter.answer = tuple(plain.tokens)
    expected = reference_taps(checkpoint, plain.tokens)
    for reused in (0, len(prompt) - 1):
        request, rows = reported(llm, prompt, draft=6)
        assert request.tokens == plain.tokens
        assert request.stats.reused_tokens == rows[0].first == reused  # what the prefix cache holds is not reported
        assert max(len(part.tokens) for part in rows[-3:]) > 1, "draft rows were accepted"
        if not reused:
            assert [len(part.tokens) for part in rows[:3]] == [16, 16, 9]
        at = reused
        for part in rows:
            assert set(part.taps) == set(expected)
            for layer, states in part.taps.items():
                assert part.first == at
                np.testing.assert_allclose(states, expected[layer][at : at + len(part.tokens)], **CLOSE)
            at += len(part.tokens)
        bitwise(llm, request.tokens[:at], rows, reused)


def bitwise(llm, tokens, rows, reused):
    """To the bit, the taps are those of all tokens in one pass."""
    llm.parts.target.run([chain(llm.parts.caches.new(), tokens, [])])
    for layer, states in llm.parts.target.taps(len(tokens)).items():
        assert np.array_equal(np.concatenate([part.taps[layer] for part in rows]), states[reused:])


def test_requests_of_a_batch_get_their_own_rows(llm, checkpoint):
    (drafter,) = llm.parts.engine.planner.drafters
    drafter.answer = ()
    prompts = [[5 + 7 * n % 400 for n in range(size)] for size in (3, 21, 40)]
    requests = [llm.parts.engine.add(prompt, SamplingParams(max_tokens=6, cache_prompt=False)) for prompt in prompts]
    rows = [drafter.rows[request.number] for request in requests]
    while not all(request.ended for request in requests):
        llm.parts.engine.step()
    for request, parts in zip(requests, rows, strict=True):
        expected = reference_taps(checkpoint, request.tokens)
        for layer, states in expected.items():
            found = np.concatenate([part.taps[layer] for part in parts])
            np.testing.assert_allclose(found, states[: len(found)], **CLOSE)


def test_without_a_drafter_that_taps_nothing_is_recorded(checkpoint):
    llm = LLM(checkpoint.path, threads=1, context=64, drafter=None)
    assert llm.parts.target.forward.taps == {}
    assert llm.parts.target.taps(8) == {}
    assert registry.tapped_layers(checkpoint.config, []) == ()
    assert not record_gemma(checkpoint.config, checkpoint.tensors).every_row


def test_layers_of_a_kind_with_a_checkpoint_depend_on_its_config(checkpoint, monkeypatch):
    """They are recorded for a drafter of that kind alone, and once where several kinds tap the same layer."""
    kinds = [
        registry.Kind("written", lambda _: None, str, taps=lambda _, drafter: map(int, drafter.split())),
        registry.Kind("toy", lambda _: None, taps=lambda _, drafter: [2] if drafter is None else [99]),
    ]
    monkeypatch.setattr(registry, "KINDS", kinds)
    assert registry.tapped_layers(checkpoint.config, ["3 0 2"]) == (0, 2, 3)
    assert registry.tapped_layers(checkpoint.config, [7]) == (2,)
