"""A pass is shared fairly. Time is a made-up clock here: a pass takes what its rows say."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_checkpoints import save_gguf

from outrider import LLM, SamplingParams
from outrider.engine.prefill import PromptShare, divide
from outrider.speculation.costs import VerifyCost, VerifyCosts

ROWS, SECONDS = [1, 16], [1.0, 1.6]
"""Up to 16 rows of the made-up machine; beyond them a row is dearer, which the engine has to find out."""


def made_up_seconds(rows):
    return 1.0 + 0.04 * (rows - 1) + 0.1 * max(rows - 16, 0)


@pytest.fixture(scope="module")
def llm(tiny, tmp_path_factory, word_tokenizer):
    import gguf

    path = tmp_path_factory.mktemp("fair") / "tiny.gguf"
    save_gguf(tiny("gemma4-e2b").model, path, gguf.GGMLQuantizationType.Q4_0)
    made = LLM(path, threads=1, context=2048)
    word_tokenizer(made)
    return made


@pytest.fixture
def passes(llm, monkeypatch):
    """Of every pass: rows per sequence that have no output (prompts), and of the others; their time is made up."""
    seen = []
    llm.parts.caches.clear()
    run = llm.parts.target.run

    def timed(sequences, *, logits=False):
        rows = [len(s.tokens) for s in sequences]
        seen.append((rows, [s.cache.length for s in sequences]))
        return dataclasses.replace(run(sequences, logits=logits), seconds=made_up_seconds(sum(rows)))

    monkeypatch.setattr(llm.parts.target, "run", timed)
    monkeypatch.setattr(llm.parts.engine.planner, "costs", VerifyCosts(VerifyCost(list(ROWS), list(SECONDS))))
    monkeypatch.setattr(llm.parts.engine, "_share", PromptShare(VerifyCost(list(ROWS), list(SECONDS))))
    yield seen
    for request in list(llm.parts.engine._running):
        llm.parts.engine.cancel(request)


def finish(llm, requests):
    while any(request.finish_reason is None for request in requests):
        llm.parts.engine.step()
    return [request.output() for request in requests]


@pytest.mark.parametrize("company", [1, 4])
@pytest.mark.parametrize("draft", ["off", "auto"])
def test_a_long_prompt_does_not_hold_up_those_that_decode(llm, passes, company, draft):
    prompts = [[7 + number, 8, 9] for number in range(company)]
    params = SamplingParams(max_tokens=1500, ignore_end=True, draft=draft, temperature=1.0, seed=3)
    requests = [llm.parts.engine.add(list(prompt), params) for prompt in prompts]
    while not all(request.decoding for request in requests):
        llm.parts.engine.step()
    passes.clear()
    long = [11 + n % 400 for n in range(1200)]
    late = llm.parts.engine.add(list(long), SamplingParams(max_tokens=5, ignore_end=True, draft="off"))
    while not late.decoding:
        llm.parts.engine.step()
        assert all(request.finish_reason is None for request in requests), "the prompt should have come through"
    for rows, _ in passes:
        alone = made_up_seconds(company)
        assert len(rows) == company + 1, "nobody misses a pass"
        # Twice the time that decoding alone takes; beyond it only while the price of a row is still being found out.
        assert made_up_seconds(sum(rows)) <= 3 * alone
    settled = passes[len(passes) // 2 : -1]
    seconds = [made_up_seconds(sum(rows)) / made_up_seconds(sum(rows[:company])) for rows, _ in settled]
    assert max(seconds) < 2.3
    assert sum(seconds) / len(seconds) > 1.6, "and the prompt gets its half"
    for request, prompt in zip(requests, prompts, strict=True):
        llm.parts.engine.cancel(request)
        llm.parts.caches.clear()
        plain = SamplingParams(max_tokens=len(request.answer), ignore_end=True, draft="off", temperature=1.0, seed=3)
        assert llm.generate([prompt], plain)[0].token_ids == tuple(request.answer)
    (out,) = finish(llm, [late])
    llm.parts.caches.clear()
    assert llm.generate([long], SamplingParams(max_tokens=5, ignore_end=True, draft="off"))[0].token_ids == (
        out.token_ids
    )


def test_a_prompt_alone_has_the_whole_pass(llm, passes):
    llm.generate([[11 + n % 400 for n in range(1000)]], SamplingParams(max_tokens=1))
    assert [rows for rows, _ in passes] == [[256], [256], [256], [232]]


def test_a_short_prompt_is_not_held_up_by_a_long_one_before_it(llm, passes):
    long = llm.parts.engine.add([11 + n % 400 for n in range(1500)], SamplingParams(max_tokens=1))
    short = llm.parts.engine.add([5, 6, 7], SamplingParams(max_tokens=1))
    llm.parts.engine.step()
    assert short.finish_reason == "length"
    finish(llm, [long])
    assert passes[0][0] == [253, 3]


def test_drafts_shrink_as_load_grows(llm, passes):
    """Every text is as easy to draft; the more of them, the fewer rows each gets, and the surest go first."""
    most = {}
    for company in (1, 2, 4, 8, 16):
        llm.parts.caches.clear()
        params = SamplingParams(max_tokens=60, ignore_end=True, logit_bias={9: 100.0})  # 9 9 9 9 ...
        requests = [llm.parts.engine.add([9] * (20 + number), params) for number in range(company)]
        while not all(request.decoding for request in requests):
            llm.parts.engine.step()
        passes.clear()
        finish(llm, requests)
        full = [rows for rows, _ in passes if len(rows) == company]
        assert all(sum(rows) <= company + 15 + 1 for rows in full)  # 15 drafts among all; now and then a probe
        most[company] = sum(map(sum, full)) / len(full) / company
    rows = list(most.values())
    assert rows == sorted(rows, reverse=True)
    assert rows[0] > 6
    assert rows[-1] < 2


def test_rows_of_a_prompt_follow_the_measured_cost():
    share = PromptShare(VerifyCost([1, 16], [1.0, 1.6]))
    assert share.rows(1.0) == 16  # no further than was measured
    for _ in range(50):
        rows = share.rows(1.0)
        share.observe(rows, 1.0, 1.0 + 0.02 * rows)
    assert 48 <= rows <= 50
    for _ in range(50):  # a longer context, a slower machine
        rows = share.rows(1.0)
        share.observe(rows, 1.0, 1.0 + 0.25 * rows)
    assert rows == 4
    for _ in range(50):
        share.observe(share.rows(1.0), 1.0, 9.0)
    assert share.rows(1.0) == 1  # a prompt always goes on


def test_rows_that_cost_nothing_are_tried_step_by_step():
    share = PromptShare(VerifyCost([1, 16], [1.0, 1.0]))
    tried = []
    for _ in range(5):
        tried.append(share.rows(1.0))
        share.observe(tried[-1], 1.0, 1.0)
    assert tried == [16, 32, 64, 128, 256]


@given(st.integers(0, 300), st.lists(st.integers(1, 256), max_size=9))
def test_rows_are_divided_evenly_and_none_is_wasted(room, wanted):
    given = divide(room, wanted)
    assert sum(given) == min(room, sum(wanted))
    assert all(0 <= got <= want for got, want in zip(given, wanted, strict=True))
    unsatisfied = [got for got, want in zip(given, wanted, strict=True) if got < want]
    assert not unsatisfied or max(given) - min(unsatisfied) <= 1
