"""Answers that are compared are those of `generate`, with gauges around their decoding."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
from tiny_checkpoints import make_assistant, save_folder

from outrider import LLM, SamplingParams
from outrider.bench import comparer as comparer_module
from outrider.bench.comparer import Comparer
from outrider.bench.prompt import Prompt
from outrider.bench.usual_pace import read_gauge

PROMPT, TOKEN_IDS = Prompt("prose", "any"), [5, 6, 7, 8] * 6
PARAMS = SamplingParams(max_tokens=24)


@pytest.fixture(scope="module")
def llm(tiny, tmp_path_factory, word_tokenizer):
    """With an MTP drafter, which starts from what a pass before the gauge left it."""
    target = tiny("gemma4-dense")
    drafter = save_folder(
        make_assistant(target.model.config.get_text_config(), ordered=False), tmp_path_factory.mktemp("drafter")
    )
    made = LLM(target.gguf, drafter=drafter, threads=1, context=256)
    word_tokenizer(made)
    return made


@pytest.fixture(autouse=True)
def known_prompt(monkeypatch):
    monkeypatch.setattr(comparer_module, "render", lambda _prompt, _llm: TOKEN_IDS)


def test_the_gauges_stand_around_the_decoding(llm, monkeypatch):
    happened, step = [], llm.engine.step
    monkeypatch.setattr(llm.engine, "step", lambda: happened.append("pass") or step())
    monkeypatch.setattr(comparer_module, "read_gauge", lambda _llm: happened.append("gauge") or 0.008)
    compared = Comparer(llm, None, PARAMS).compare(PROMPT, ("plain", "drafted"))
    expected = []
    for output in (compared.plain, compared.drafted):
        expected += ["pass", "gauge", *["pass"] * output.stats.target_passes, "gauge"]  # the first is the prompt's
    assert happened == expected


@pytest.fixture
def slow_gauges(monkeypatch):
    """Each takes a second more; what they found."""
    read = []

    def slow(llm):
        time.sleep(1.0)
        read.append(read_gauge(llm))
        return read[-1]

    monkeypatch.setattr(comparer_module, "read_gauge", slow)
    return read


def test_a_gauge_within_an_answer_changes_nothing_of_it(llm, slow_gauges):
    compared = Comparer(llm, None, PARAMS).compare(PROMPT, ("plain", "drafted"))
    for output, draft in ((compared.plain, "off"), (compared.drafted, "auto")):
        (alone,) = llm.generate([TOKEN_IDS], replace(PARAMS, draft=draft))
        assert (output.token_ids, output.text, output.finish_reason, output.prompt_token_ids) == (
            *(alone.token_ids, alone.text, alone.finish_reason, alone.prompt_token_ids),
        )
        assert len(output.token_ids) > 1
        stats = output.stats
        assert 0 < stats.verify_seconds + stats.draft_seconds <= stats.decode_seconds < 1.0
    assert compared.identical
    assert compared.gauges == {"plain": tuple(slow_gauges[:2]), "drafted": tuple(slow_gauges[2:])}


def test_a_prompt_is_computed_in_both_arms_or_in_none(llm):
    comparer = Comparer(llm, None, replace(PARAMS, max_tokens=12))
    llm.caches.clear()
    computed, again = (comparer.compare(PROMPT, ("plain", "drafted"), cache_prompt=cached) for cached in (False, True))
    for first, second in ((computed.plain, again.plain), (computed.drafted, again.drafted)):
        assert (first.stats.reused_tokens, second.stats.reused_tokens) == (0, len(TOKEN_IDS) - 1)
        assert first.token_ids == second.token_ids
        assert len(first.stats.passes) > 0


def test_an_answer_of_one_token_is_not_decoded(llm):
    compared = Comparer(llm, None, replace(PARAMS, max_tokens=1)).compare(PROMPT, ("drafted", "plain"))
    for output in (compared.plain, compared.drafted):
        assert len(output.token_ids) == 1
        assert output.stats.decode_seconds == 0.0
