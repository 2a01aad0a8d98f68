"""Drafting on or off, the answer is the same: tokens, text and finish reason, for greedy and sampled requests."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_checkpoints import VARIANTS, VOCAB, WINDOW, save_gguf

from outrider import LLM, SamplingParams

TARGETS = [name for name in VARIANTS if not name.startswith("assistant")]


@pytest.fixture(scope="module")
def llms(tiny, tmp_path_factory, word_tokenizer):
    """Variant -> a model with quantized weights; its text is words from a small tokenizer."""
    import gguf

    made: dict[str, LLM] = {}
    root = tmp_path_factory.mktemp("llms")

    def get(variant: str) -> LLM:
        if variant not in made:
            path = save_gguf(tiny(variant).model, root / f"{variant}.gguf", gguf.GGMLQuantizationType.Q4_0)
            made[variant] = LLM(path, threads=2, context=256)
            word_tokenizer(made[variant])
        return made[variant]

    return get


@st.composite
def requests(draw):
    """A prompt that repeats itself, so that lookup drafts, and parameters that let the end fall anywhere."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    motif = [int(t) for t in rng.integers(3, VOCAB, draw(st.integers(1, 12)))]
    noise = [int(t) for t in rng.integers(3, VOCAB, draw(st.integers(0, 2 * WINDOW)))]
    prompt = (motif * 4 + noise + motif * draw(st.integers(1, 3)))[-120:]
    params = {
        "max_tokens": draw(st.integers(1, 40)),
        "temperature": draw(st.sampled_from([0.0, 0.0, 0.3, 1.0])),
        "top_k": draw(st.sampled_from([0, 5, 50])),
        "top_p": draw(st.sampled_from([1.0, 0.8])),
        "min_p": draw(st.sampled_from([0.0, 0.05])),
        "seed": draw(st.integers(0, 2**64 - 1)),
        "stop": tuple(draw(st.lists(st.sampled_from(["ab", "c d", "e", "zz top"]), max_size=2))),
    }
    return prompt, params


def answer(llm, prompt, params, draft):
    out = llm.generate([prompt], SamplingParams(**params, draft=draft))[0]
    return out.token_ids, out.text, out.finish_reason


@pytest.mark.parametrize("variant", TARGETS)
@settings(max_examples=25, deadline=None)
@given(request=requests(), draft=st.one_of(st.just("auto"), st.integers(1, 20)))
def test_drafting_changes_nothing(llms, variant, request, draft):
    llm = llms(variant)
    assert answer(llm, *request, draft) == answer(llm, *request, "off")


@pytest.mark.parametrize("variant", ["gemma3", "gemma4-e2b"])
@settings(max_examples=15, deadline=None)
@given(several=st.lists(requests(), min_size=2, max_size=5), draft=st.sampled_from(["auto", "off", 4]))
def test_company_changes_nothing(llms, variant, several, draft):
    """Requests of different lengths in one batch, each with its own parameters, equal their solo runs."""
    llm = llms(variant)
    running = [llm.parts.engine.add(list(prompt), SamplingParams(**params, draft=draft)) for prompt, params in several]
    while any(request.finish_reason is None for request in running):
        llm.parts.engine.step()
    for request, (prompt, params) in zip(running, several, strict=True):
        out = request.output()
        assert (out.token_ids, out.text, out.finish_reason) == answer(llm, prompt, params, "off")


@pytest.mark.parametrize("variant", ["gemma3", "gemma4-e2b"])
def test_eight_of_different_lengths_share_every_pass(llms, variant, monkeypatch):
    """Each is at another place: before, at and after the sliding window's width, and all draft."""
    llm, rows = llms(variant), []
    prompts = [([5, 6, 7, 8, 9, 11][: 2 + n % 5] * 40)[: WINDOW // 2 + 5 * n] for n in range(8)]
    params = [SamplingParams(max_tokens=20, ignore_end=True, temperature=n % 2, seed=n, draft=3) for n in range(8)]
    alone = [llm.generate([prompt], one)[0] for prompt, one in zip(prompts, params, strict=True)]
    llm.parts.caches.clear()
    run = llm.parts.target.run

    def watched(sequences, **options):
        rows.append([len(sequence.tokens) for sequence in sequences])
        return run(sequences, **options)

    monkeypatch.setattr(llm.parts.target, "run", watched)
    running = [llm.parts.engine.add(list(prompt), one) for prompt, one in zip(prompts, params, strict=True)]
    while any(request.finish_reason is None for request in running):
        llm.parts.engine.step()
    assert [request.output().token_ids for request in running] == [out.token_ids for out in alone]
    shared = [one for one in rows if len(one) == 8]
    assert len(shared) > 4
    assert any(len(set(one)) > 1 for one in shared[1:]), "drafts of different lengths, in one pass"


@pytest.mark.parametrize("variant", TARGETS)
def test_a_reused_prefix_changes_nothing(llms, variant):
    """Growing, edited and shortened prompts, with windows that wrapped in between."""
    llm, rng = llms(variant), np.random.default_rng(5)
    base = [int(t) for t in rng.integers(3, VOCAB, 90)]
    prompts = [base, [*base, 7, 8, 9], [*base[:80], 11, 12], base[:40], base[:3], [*base[:85], 3], base]
    params = {"max_tokens": 12}
    reused = [answer(llm, prompt, params, 5) for prompt in prompts]
    for prompt, found in zip(prompts, reused, strict=True):
        llm.parts.caches.clear()
        assert answer(llm, prompt, params, "off") == found


@pytest.mark.parametrize("draft", ["off", "auto", 7])
def test_the_end_falls_anywhere_in_an_accepted_run(llms, draft):
    """max_tokens, a stop text and an end token at every place of a text that drafts right."""
    llm = llms("gemma3")
    prompt = [5, 6, 7, 8] * 12
    whole = llm.generate([prompt], SamplingParams(max_tokens=30, draft="off", ignore_end=True))[0]
    for count in range(1, 30):
        out = llm.generate([prompt], SamplingParams(max_tokens=count, draft=draft, ignore_end=True))[0]
        assert out.token_ids == whole.token_ids[:count]
        assert out.finish_reason == "length"
        assert out.stats.drafted >= out.stats.accepted >= 0
    for place, token in enumerate(whole.token_ids):
        first = whole.token_ids.index(token)
        stop = llm.tokenizer.decode([token]).strip()
        out = llm.generate([prompt], SamplingParams(max_tokens=30, draft=draft, ignore_end=True, stop=(stop,)))[0]
        assert out.finish_reason == "stop"
        assert stop not in out.text
        assert len(out.token_ids) <= first + 1 <= place + 1
        llm.parts.engine._end_tokens = frozenset([token])
        out = llm.generate([prompt], SamplingParams(max_tokens=30, draft=draft))[0]
        llm.parts.engine._end_tokens = frozenset(llm.config.end_token_ids)
        assert out.token_ids == whole.token_ids[: first + 1]
        assert out.finish_reason == "stop"


@pytest.mark.parametrize("draft", ["off", "auto", 20])
def test_the_context_ends_the_answer(llms, draft):
    llm = llms("gemma4-dense")
    prompt = [5, 6, 7] * 84
    out = llm.generate([prompt], SamplingParams(max_tokens=100, draft=draft, ignore_end=True))[0]
    assert len(out.token_ids) == 256 - len(prompt)
    assert out.finish_reason == "length"


def test_drafts_are_made_and_accepted_where_text_repeats(llms):
    """That the tests above test something."""
    out = llms("gemma3").generate([[5, 6, 7, 8] * 12], SamplingParams(max_tokens=30, draft=4, ignore_end=True))[0]
    assert out.stats.accepted > 0
    assert out.stats.target_passes < 29
    assert sum(out.stats.accepted_by_depth) == out.stats.accepted == sum(out.stats.accepted_by_source.values())


def test_requests_of_one_pass_learn_each_from_its_own_draft(llms):
    """Two requests draft in the same pass from matches of different lengths; both lengths must learn."""
    llm = llms("gemma3")
    calibration = llm.parts.engine.planner.calibrations[None]
    calibration._counts.clear()
    prompts = [[5, 6, 7, 8] * 12, [9, 9, 4, 3, 11, 9, 9]]
    llm.generate(prompts, SamplingParams(max_tokens=6, draft=2, ignore_end=True))
    assert len({features[0] for source, features in calibration._counts if source == "lookup"}) > 1
